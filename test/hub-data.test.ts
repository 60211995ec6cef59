// Data sets and models of the hub: found by config and split, fetched once as of a commit, taken up where they broke off, and every
// refusal said in words. A server of this process speaks for the hub.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { fetchHubData, readHubWord } from '../runtime/data/hub-data.ts';
import { fetchAll, readSpecs } from '../runtime/data/specs.ts';
import { fetchModel } from '../runtime/hub/fetch-model.ts';
import { readCorpus } from '../runtime/train/corpus.ts';
import { type HubServer, startHub } from './fixtures/hub-server.ts';

const test = suite('data sets of the hub');
const folder = mkdtempSync(join(tmpdir(), 'malc-hub-'));

const commit = (digit: string) => digit.repeat(40);
const lines = (word: string, count: number) => `{"text":"${word}"}\n`.repeat(count);
const long = lines('one of many lines', 40);
/** One with configs and splits in folders, one as the hub converts it, one of a single file, one that needs a token. */
const repositories = {
  'us/many': {
    revisions: { main: commit('a') },
    commits: {
      [commit('a')]: {
        'README.md': '# Many',
        'en/train-00000-of-00002.jsonl': long,
        'en/train-00001-of-00002.jsonl': lines('two', 3),
        'en/test.jsonl': lines('test', 2),
        'de/train.jsonl': lines('zwei', 2),
      },
    },
  },
  'us/converted': {
    revisions: { main: commit('b'), 'refs/convert/parquet': commit('c') },
    commits: {
      [commit('b')]: { 'data.txt': 'own' },
      [commit('c')]: { 'default/partial-train/0000.parquet': 'P', 'default/validation/0000.parquet': 'V' },
    },
  },
  'us/one': {
    revisions: { main: commit('d') },
    commits: { [commit('d')]: { 'stories.txt': 'a story\n'.repeat(5) }, [commit('e')]: { 'stories.txt': 'older\n' } },
  },
  'us/model': {
    revisions: { main: commit('1') },
    commits: {
      [commit('1')]: Object.fromEntries(
        [
          'README.md',
          'config.json',
          'tokenizer.json',
          'model.safetensors',
          'other.safetensors',
          'onnx/model.safetensors',
        ].map(name => [name, name]),
      ),
    },
  },
  'us/pieces': {
    revisions: { main: commit('2') },
    commits: {
      [commit('2')]: Object.fromEntries(
        ['config.json', 'model.safetensors.index.json', 'model-1-of-2.safetensors', 'model-2-of-2.safetensors'].map(
          name => [name, name],
        ),
      ),
    },
  },
  'us/private': {
    revisions: { main: commit('f') },
    commits: { [commit('f')]: { 'a.txt': 'secret\n' } },
    token: 'hf_right',
  },
};

let hub: HubServer;
let caches = 0;
test.before(async () => {
  hub = await startHub(repositories);
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') });
});
test.before.each(() => {
  hub.asked.length = 0;
  hub.faults.length = 0;
  for (const name of ['HF_TOKEN', 'HF_TOKEN_PATH', 'HF_HUB_OFFLINE']) delete process.env[name];
  process.env.MALC_CACHE = join(folder, `cache-${caches++}`);
});
test.after(() => {
  hub.close();
  rmSync(folder, { recursive: true });
});

const fetched = async (word: string) => {
  const { paths, pinned } = await fetchHubData(word, () => {});
  return { texts: paths.map(path => readFileSync(path, 'utf8')), pinned };
};

async function refuses(work: () => Promise<unknown>, ...says: RegExp[]): Promise<void> {
  const error = await work().then(
    () => null,
    fault => fault,
  );
  assert.instance(error, UserError, String(error?.stack));
  for (const each of says) assert.match(error.message, each);
}

test('a name has a revision, a config and a split, or none of them', () => {
  assert.equal(readHubWord('hf:us/many'), { name: 'us/many', revision: null, config: null, split: null });
  const all = { name: 'us/many', revision: 'main', config: 'en', split: 'test' };
  assert.equal(readHubWord('hf:us/many@main:en:test'), all);
  for (const word of ['hf:', 'hf:a/b/c', 'hf:a b', 'hf:a/b:c:d:e'])
    assert.throws(
      () => readHubWord(word),
      (error: Error) => error instanceof UserError && /names no data set/.test(error.message),
    );
});

test('a config and a split are found by folders and names; what is not there is refused with what is', async () => {
  const train = { texts: [long, lines('two', 3)], pinned: `hf:us/many@${commit('a')}:en:train` };
  assert.equal(await fetched('hf:us/many:en'), train);
  assert.equal((await fetched('hf:us/many:en:test')).texts, [lines('test', 2)]);
  await refuses(() => fetched('hf:us/many'), /has several configs .*: de, en/);
  await refuses(() => fetched('hf:us/many:fr'), /has no config fr; it has de, en/);
  await refuses(
    () => fetched('hf:us/many:en:tran'),
    /config en, has no split tran; it has test, train.*Did you mean train/,
  );
  assert.is((await fetched('hf:us/one')).pinned, `hf:us/one@${commit('d')}:default:train`);
});

test('what the hub has converted goes first, and half of it is not taken for the whole', async () => {
  assert.equal(await fetched('hf:us/converted:default:validation'), {
    texts: ['V'],
    pinned: `hf:us/converted@${commit('c')}:default:validation`,
  });
  await refuses(() => fetched('hf:us/converted'), /in its first part alone, the split partial-train/, /@main/);
  assert.equal((await fetched('hf:us/converted:default:partial-train')).texts, ['P']);
  assert.equal((await fetched('hf:us/converted@main')).texts, ['own']);
});

test('what was fetched is not asked for again: a commit, nor without a network anything', async () => {
  const { pinned } = await fetched('hf:us/one');
  hub.asked.length = 0;
  await fetched(pinned);
  assert.equal(hub.asked, []);
  process.env.HF_HUB_OFFLINE = '1';
  await fetched('hf:us/one');
  await fetched(pinned);
  await refuses(() => fetched('hf:us/many:en'), /HF_HUB_OFFLINE is set, and us\/many at main is not in malc's cache/);
  assert.equal(hub.asked, []);
});

test('an older commit is read as it was', async () => {
  assert.equal((await fetched(`hf:us/one@${commit('e')}`)).texts, ['older\n']);
  await refuses(() => fetched('hf:us/one@nowhere'), /the hub has no us\/one at nowhere/);
});

test('a download that breaks off is taken up where it stopped', async () => {
  hub.faults.push('break');
  assert.is((await fetched('hf:us/many:en')).texts[0], long);
  const parts = hub.asked.filter(line => line.startsWith('/large/'));
  assert.is(parts.length, 2);
  assert.match(parts[1]!, new RegExp(` bytes=${long.length >> 1}-$`));
  const files = readdirSync(process.env.MALC_CACHE!, { recursive: true, encoding: 'utf8' });
  assert.not(files.some(name => name.endsWith('.part')));
});

test('a server that knows no ranges begins again', async () => {
  hub.faults.push('break', 'ignore-range');
  assert.is((await fetched('hf:us/many:en')).texts[0], long);
});

test('another content than was described is refused, and fetched anew the next time', async () => {
  hub.faults.push('other-content');
  await refuses(() => fetched('hf:us/one'), /stories\.txt of us\/one came with another content/);
  assert.equal((await fetched('hf:us/one')).texts, ['a story\n'.repeat(5)]);
});

test('a server that is busy is asked again', async () => {
  hub.faults.push('busy');
  assert.is((await fetched('hf:us/one')).texts.length, 1);
});

test('a token comes from the environment or a file, and goes to no other host', async () => {
  await refuses(
    () => fetched('hf:us/private'),
    /has no data set us\/private \(401\), or it is private/,
    /set HF_TOKEN/,
  );
  process.env.HF_TOKEN = 'hf_wrong';
  await refuses(() => fetched('hf:us/private'), /does not know the token .*\(401\); check HF_TOKEN/);
  process.env.HF_TOKEN = 'hf_right';
  assert.equal((await fetched('hf:us/private')).texts, ['secret\n']);
  hub.asked.length = 0;
  await fetched('hf:us/many:en');
  const large = hub.asked.filter(line => line.startsWith('/large/'));
  assert.ok(large.length === 1 && !large[0]!.endsWith('authorized'), large.join());
  assert.ok(hub.asked.some(line => line.includes('/resolve/') && line.endsWith('authorized')));
});

test('refusals say what to do', async () => {
  await refuses(() => fetched('hf:us/nothing'), /the hub has no data set us\/nothing/);
  hub.faults.push('limit');
  await refuses(() => fetched('hf:us/one'), /too many requests \(429\); run the command again in 30 seconds/);
  hub.faults.push('gated');
  await refuses(() => fetched('hf:us/one'), /us\/one is given on request alone .*: ask on http.*\/datasets\/us\/one/);
});

test('without hf: a missing file is no data set, and a number after the name no config', async () => {
  await refuses(() => fetchAll(['us/one'], () => {}), /there is no file us\/one .*write hf:us\/one/);
  await refuses(async () => readSpecs(['hf:us/one:2017', 'b:1']), /2017 can be a weight or a config/);
  assert.is(readSpecs(['hf:us/one:2.0', 'b:1'])[0]!.weight, 2);
  assert.equal(hub.asked, []);
});

test('a model comes with its config, its tokenizer and its weights, each once', async () => {
  const model = await fetchModel('hf:us/model', () => {});
  assert.is(basename(model), 'model');
  assert.equal(readdirSync(model).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
  const pieces = ['model-1-of-2.safetensors', 'model-2-of-2.safetensors', 'model.safetensors.index.json'];
  assert.equal(readdirSync(await fetchModel('hf:us/pieces@main', () => {})).sort(), ['config.json', ...pieces]);
  await refuses(() => fetchModel('hf:us/one', () => {}), /hf:us\/one has no weights as safetensors/);
  await refuses(() => fetchModel('hf:us/model:en', () => {}), /names no model/);
});

test('a corpus of the hub says its commit, in mixtures too', async () => {
  const options = { validationShare: 0, tokenizer: null, vocabularySize: 300, textField: null, onSkipped: null };
  const { paths, documents } = await readCorpus(
    ['hf:us/many:en', 'hf:us/one'].map(word => `${word}:1.5`),
    options,
  );
  assert.equal(paths, [`hf:us/many@${commit('a')}:en:train:1.5`, `hf:us/one@${commit('d')}:default:train:1.5`]);
  assert.is(documents, 40 + 3 + 1);
  hub.asked.length = 0;
  assert.equal((await readCorpus(paths, options)).paths, paths);
  assert.equal(hub.asked, []);
  assert.ok(existsSync(join(process.env.MALC_CACHE!, 'hub/datasets/us--many')));
});

test.run();
