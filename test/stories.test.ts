// The stories: a pure function of the seed, whole, and grammatical in what can be checked.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { STORY_END, writeStories } from '../runtime/data/stories.ts';

const stories = suite('stories');

const text = writeStories(1, 1_000_000);
const list = text.split(`\n${STORY_END}\n`).slice(0, -1);

stories('are a pure function of the seed, and a longer text begins as a shorter one', () => {
  assert.ok(writeStories(1, 1_000_000) === text);
  assert.ok(text.startsWith(writeStories(1, 5000)));
  assert.ok(writeStories(2, 5000) !== writeStories(1, 5000));
});

stories('are as many whole ones as reach the size', () => {
  assert.ok(text.length >= 1_000_000 && text.length < 1_003_000);
  assert.ok(text.endsWith(`\n${STORY_END}\n`));
  assert.ok(writeStories(1, 1).split(STORY_END).length === 2);
});

stories('are plain ASCII prose with nothing of the templates left', () => {
  const odd = text.replaceAll(STORY_END, '').match(/[^\x20-\x7e\n]|[{}[\]|<>]|undefined| {2}| \n|[^.!?"]\n\n|\n\n\n/);
  assert.is(odd, null, `${odd?.[0]} at ${odd?.index}: ${text.slice((odd?.index ?? 0) - 40, (odd?.index ?? 0) + 40)}`);
});

stories('have a where a belongs, and an where an', () => {
  assert.is(text.match(/\ba [aeiou]\w*/i)?.[0], undefined);
  assert.is(text.match(/\ban (?!hour)[^aeiou]\w*/i)?.[0], undefined);
});

stories('begin every sentence with a capital and end every paragraph', () => {
  assert.is(text.match(/[^\n]{0,30}[.!?] [a-z]\w*/)?.[0], undefined);
  assert.is(text.match(/^[a-z].*/m)?.[0], undefined);
  for (const story of list) for (const paragraph of story.split('\n\n')) assert.match(paragraph, /[.!?]"?$/, paragraph);
});

stories('close every quotation', () => {
  for (const story of list)
    for (const paragraph of story.split('\n\n')) assert.is((paragraph.split('"').length - 1) % 2, 0, paragraph);
});

stories('keep to their hero: named at the start, again and again after', () => {
  for (const story of list) {
    const hero = /(?:named|called|whose name was) (\w+)|^(\w+) was a/.exec(story)!;
    const name = hero[1] ?? hero[2]!;
    assert.ok(story.split(name).length > 5, story);
  }
});

stories('differ: no story twice, and most sentences with names put aside are of many kinds', () => {
  assert.is(new Set(list).size, list.length);
  const beginnings = new Set(list.map(story => story.slice(0, 60)));
  assert.ok(beginnings.size > list.length * 0.9);
  const sentences = new Set(text.split(/[.!?]"? |\n+/));
  assert.ok(sentences.size > 5000, `${sentences.size}`);
});

stories.run();
