// `malc fmt`: the canonical layout, that it changes neither meaning nor comments, and that it is stable.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SourceError, UserError } from '../compiler/diagnostic.ts';
import { packagePath } from '../compiler/package-files.ts';
import { format } from '../compiler/syntax/format.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { fmt } from '../runtime/commands/fmt.ts';

fc.configureGlobal({ includeErrorInReport: true });

const layOut = (text: string) => format(text, 'test.mal');

/** What a text means: its tree without places and without the text itself. */
function meaningOf(text: string): unknown {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  assert.equal(diagnostics, [], text);
  return JSON.parse(JSON.stringify(syntax, (key, value) => (/span$/i.test(key) || key === 'text' ? undefined : value)));
}

/** The comments of a text in their order, without the white space at their ends. */
const commentsOf = (text: string) =>
  [...text.matchAll(/"(?:[^"\\]|\\[\s\S])*"|(#[^\n]*)/g)].flatMap(match => match[1]?.trimEnd() ?? []);

/** Everything that must hold of any text without syntax errors. */
function checkLaidOut(text: string): void {
  const result = layOut(text);
  assert.equal(meaningOf(result), meaningOf(text));
  assert.equal(commentsOf(result), commentsOf(text));
  assert.is(layOut(result), result, 'it is stable');
  const outsideStrings = result.replace(/#[^\n]*|"(?:[^"\\]|\\[\s\S])*"/g, written =>
    written[0] === '"' ? '""' : '#',
  );
  assert.not.match(outsideStrings, /[ \t]\n|\n\n\n|^\n|\n\n$|[\r\t\uFEFF]/);
  assert.ok(result === '' || result.endsWith('\n'));
}

const parses = (text: string) => parse(text, 'test.mal').diagnostics.length === 0;

const malFiles = (folder: string) =>
  readdirSync(folder)
    .filter(name => name.endsWith('.mal'))
    .map(name => join(folder, name));

const shipped = ['mal/examples', 'mal/std', 'well-known/models'].flatMap(folder => malFiles(packagePath(folder)));
const golden = malFiles(join(dirname(fileURLToPath(import.meta.url)), 'errors'));
const textOf = (file: string) => readFileSync(file, 'utf8');

/** A text with all that the language has. */
const everything = String.raw`import "blocks.mal" let d = 768 # the width
let e = (d + 2) * -3 / (4 - d)
norm dyt(x){alpha:learned -0.5 beta:-1e-5}=tanh(alpha*x-1)*weight+bias
mask prefix(q,k)=k<=q||!(k>=64)&&q!=1e-3
score cap(s, q, k, head) = s >0? 30*tanh(s/-30):-x^-2^y
attention a { num_heads: d/64 - 1 position_encoding:rope{theta:1e6} bias:true }
attention b extends a{window_size:512 # sees that many
}
memory c { tier fast { x: 1 } }
model m {
  description : "a \"b\" # no comment
of two lines" layers: [ 2*dense,(d -1)*[near , far,], d-1 * near,
  last ]


  embeddings { } # shared
                 # with the output

  # before the end
}
# the end`;

const layout = suite('layout');

layout('experts, latents and state spaces, with their comments', () => {
  const text = `attention a{num_heads:4 sinks:true # each head has one
kind:mla{kv_latent:64 nope_head_dim:16 rope_head_dim:8} position_encoding:rope{interleaved:true}}
ssm s extends t{d_state:16 expand:2}
ffn f { moe { experts:8 top_k:2
 # how they are kept busy
 balance:loss{weight:0.01} } }
block b{ssm:s ffn:none}
norm n(x){shift:d-1 scale:learned d/2}=(x-shift)*scale*weight`;
  checkLaidOut(text);
  assert.is(
    layOut(text),
    `attention a {
  num_heads: 4
  sinks: true  # each head has one
  kind: mla { kv_latent: 64  nope_head_dim: 16  rope_head_dim: 8 }
  position_encoding: rope { interleaved: true }
}
ssm s extends t { d_state: 16  expand: 2 }
ffn f {
  moe {
    experts: 8
    top_k: 2
    # how they are kept busy
    balance: loss { weight: 0.01 }
  }
}
block b { ssm: s  ffn: none }
norm n(x) { shift: d - 1  scale: learned d / 2 } = (x - shift) * scale * weight
`,
  );
});

layout('every form has its place', () => {
  assert.is(
    layOut(everything),
    String.raw`import "blocks.mal"
let d = 768  # the width
let e = (d + 2) * -3 / (4 - d)
norm dyt(x) { alpha: learned -0.5  beta: -1e-5 } = tanh(alpha * x - 1) * weight + bias
mask prefix(q, k) = k <= q || !(k >= 64) && q != 1e-3
score cap(s, q, k, head) = s > 0 ? 30 * tanh(s / -30) : -x^-2^y
attention a { num_heads: d / 64 - 1  position_encoding: rope { theta: 1e6 }  bias: true }
attention b extends a {
  window_size: 512  # sees that many
}
memory c { tier fast { x: 1 } }
model m {
  description: "a \"b\" # no comment
of two lines"
  layers: [
    2 * dense, (d - 1) * [near, far], d-1 * near,
    last
  ]

  embeddings { }  # shared
                  # with the output

  # before the end
}
# the end
`,
  );
  checkLaidOut(everything);
});

layout('nothing stays nothing, a byte-order mark goes', () => {
  for (const text of ['', '\n\n', '\uFEFF', ' \r\n\t']) assert.is(layOut(text), '');
  assert.is(layOut('\uFEFFmodel m {\r\n}\r\n\r\n\r\n# end \t\r\n\r\n'), 'model m { }\n\n# end\n');
});

layout('a group stays on its line where it was on one and fits', () => {
  assert.is(layOut('ffn mlp{hidden_dim:344 activation:swiglu}'), 'ffn mlp { hidden_dim: 344  activation: swiglu }\n');
  assert.is(layOut('ffn mlp { hidden_dim: 344\n}'), 'ffn mlp {\n  hidden_dim: 344\n}\n');
  const columns = (count: number) => `ffn f { a: ${'x'.repeat(count - 20)}  b: 12 }`;
  assert.is(layOut(columns(100)), `${columns(100)}\n`);
  assert.is(layOut(columns(101)).split('\n').length, 5);
});

layout('a list keeps its lines, and one that is too long is wrapped', () => {
  const rows = 'model m {\n  pattern: [\n    a, b, c,\n    d, e, f,\n  ]\n}\n';
  assert.is(layOut(rows), rows);
  const wrapped = layOut(`model m { pattern: [${Array(40).fill('local').join(', ')}] }`);
  const lines = wrapped.split('\n');
  assert.ok(
    lines.every(line => line.length <= 100),
    wrapped,
  );
  assert.is(lines.length, 8);
  checkLaidOut(wrapped);
});

layout('a formula keeps its line breaks', () => {
  const written = 'activation f(x) =\n x>0?x\n    : max(\n\n x,0)';
  assert.is(layOut(written), 'activation f(x) =\n  x > 0 ? x\n  : max(\n  x, 0)\n');
  checkLaidOut(written);
});

const comments = suite('comments');

comments('those at line ends are aligned as far as lines belong together', () => {
  assert.is(
    layOut(
      'block b { # b\na: 1 # a\nlonger: 2 # l\nnone: 333333\nx: 1# x\n\ny: 1   # y\n# own\nz: 12345 # z\n}# end\nlet d = 1 # d',
    ),
    `block b {    # b
  a: 1       # a
  longer: 2  # l
  none: 333333
  x: 1       # x

  y: 1  # y
  # own
  z: 12345  # z
}           # end
let d = 1  # d
`,
  );
});

comments('one between any two tokens is kept, at a line end or on its own line', () => {
  const text =
    'let d = (a + -1) / 2 norm f(x) { a: learned 2  b: -1 } = max(x, 0)^2 > 1 ? x : !a block b extends c { d: [2 * (d) * e, [f]] norm: g { h: "" } }';
  const places = [...text.matchAll(/ |(?=\W)|(?<=\W)/g)].map(match => match.index);
  let tried = 0;
  for (const place of places) {
    for (const inserted of ['# one\n', '\n# one\n\n\n# two\n']) {
      const commented = `${text.slice(0, place)}${inserted}${text.slice(place)}`;
      // There is no place for one within the number -1 of a constant.
      if (!parses(commented)) continue;
      checkLaidOut(commented);
      tried++;
    }
  }
  assert.ok(tried > 120, `${tried}`);
});

const meaning = suite('meaning');

meaning('no file that ships or that shows an error changes its meaning', () => {
  for (const file of [...shipped, ...golden]) {
    const text = textOf(file);
    if (parses(text)) checkLaidOut(text);
    else
      assert.throws(
        () => format(text, file),
        (error: unknown) => error instanceof SourceError,
        file,
      );
  }
});

meaning('the files that ship are laid out', () => {
  for (const file of shipped) assert.is(format(textOf(file), file), textOf(file), file);
});

meaning('no mutation of their white space, comments and tokens changes it either', () => {
  const texts = [everything, ...shipped.map(textOf), ...golden.map(textOf).filter(parses)];
  const pieces = [
    ' ',
    '',
    '\n',
    '\n\n\n',
    '\r\n',
    '\t',
    '  # c',
    '# c\n',
    '\n# own\n',
    ' #\n',
    '{',
    '}',
    '-',
    ',',
    ' -1 ',
    '{ }',
    '(',
    ')',
    '"\n"',
  ];
  const edit = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    remove: fc.nat(3),
    piece: fc.constantFrom(...pieces),
  });
  let parsed = 0;
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.array(edit, { minLength: 1, maxLength: 6 }), (text, edits) => {
      let mutated = text;
      for (const { at, remove, piece } of edits) {
        const place = Math.floor(at * mutated.length);
        const mutation = mutated.slice(0, place) + piece + mutated.slice(place + remove);
        if (parses(mutation)) mutated = mutation;
      }
      parsed += Number(mutated !== text);
      checkLaidOut(mutated);
    }),
    { numRuns: 120, seed: 2101 },
  );
  assert.ok(parsed > 40, `${parsed} mutations were without syntax errors`);
});

const command = suite('malc fmt');

let folder: string;
let printed: string[];
const consoleLog = console.log;
const stdoutWrite = process.stdout.write;

command.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'malc-format-'));
  printed = [];
});

command.after.each(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Runs the command; what it prints is in `printed`. Returns the exit code that it asks for. */
async function run(args: Readonly<Record<string, unknown>>): Promise<number> {
  console.log = (line: string) => printed.push(`${line}\n`);
  process.stdout.write = ((text: string) => printed.push(text)) as never;
  try {
    await fmt.run({ check: false, stdout: false, ...args });
    return Number(process.exitCode ?? 0);
  } finally {
    console.log = consoleLog;
    process.stdout.write = stdoutWrite;
    process.exitCode = 0;
  }
}

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function failure(args: Readonly<Record<string, unknown>>): Promise<unknown> {
  try {
    await run(args);
  } catch (error) {
    return error;
  }
  throw new Error('the command did not fail');
}

command('rewrites what changes and names it', async () => {
  const dense = write('dense.mal', 'model m{}');
  const done = write('done.mal', 'model m { }\n');
  assert.is(await run({ file: [dense, done] }), 0);
  assert.equal(printed, [`${dense}\n`]);
  assert.is(textOf(dense), 'model m { }\n');
  assert.equal(readdirSync(folder).sort(), ['dense.mal', 'done.mal']);
});

command('--check writes nothing and exits with 1', async () => {
  const dense = write('dense.mal', 'model m{}');
  const done = write('done.mal', 'model m { }\n');
  assert.is(await run({ file: [dense, done], check: true }), 1);
  assert.equal(printed, [`${dense}\n`]);
  assert.is(textOf(dense), 'model m{}');
  assert.is(await run({ file: [done], check: true }), 0);
});

command('--stdout prints and leaves the file', async () => {
  const dense = write('dense.mal', 'model m{}');
  assert.is(await run({ file: [dense], stdout: true }), 0);
  assert.equal(printed, ['model m { }\n']);
  assert.is(textOf(dense), 'model m{}');
});

command('a syntax error leaves every file as it is', async () => {
  const dense = write('dense.mal', 'model m{}');
  const wrong = write('wrong.mal', 'model m{');
  const error = await failure({ file: [dense, wrong] });
  assert.instance(error, SourceError);
  assert.equal((error as SourceError).diagnostics, parse('model m{', wrong).diagnostics);
  assert.is(textOf(dense), 'model m{}');
  assert.is(textOf(wrong), 'model m{');
});

command('what cannot be laid out is refused by name', async () => {
  const latin = write('latin.mal', Uint8Array.of(0x23, 0xe9, 0x0a));
  const cases: [Readonly<Record<string, unknown>>, RegExp][] = [
    [{ file: [latin] }, /latin\.mal is not UTF-8/],
    [{ file: [join(folder, 'none.mal')] }, /there is no file .*none\.mal/],
    [{ file: [folder] }, /is a folder/],
    [{ file: [latin], check: true, stdout: true }, /--stdout/],
  ];
  for (const [args, message] of cases) {
    const error = await failure(args);
    assert.instance(error, UserError);
    assert.match((error as UserError).message, message);
  }
});

layout.run();
comments.run();
meaning.run();
command.run();
