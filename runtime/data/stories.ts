// The project's own text: small stories, written by a seeded grammar, for a first run that needs no download.
//
// Each story has a cast (a hero, a friend, an elder), a place and a thing, dealt once and kept to the end, so that a
// model that learns has facts to hold on to: the name, the pronoun, the colour, who is whose friend. Templates are text
// with choices, `[one|another]`, which may be nested, and slots, `{friend.he}`; a capital, `{friend.He}`, asks for one.
import { Random } from './random.ts';
import { friendship } from './stories/friendship.ts';
import { growing } from './stories/growing.ts';
import type { Plot } from './stories/plot.ts';
import * as words from './stories/words.ts';

/** What stands on a line of its own after each story: the tokenizers made here have it as one token. */
export const STORY_END = '<|endoftext|>';

/**
 * Whole stories, as many as reach `bytes` bytes, each followed by a line that holds only `<|endoftext|>`; paragraphs
 * are set apart by a blank line. ASCII, so that bytes are characters. Story i of a seed is always the same.
 */
export function writeStories(seed: number, bytes: number): string {
  const stories: string[] = [];
  for (let length = 0; length < bytes; ) {
    const story = `${writeStory(new Random(seed, stories.length))}\n${STORY_END}\n`;
    stories.push(story);
    length += story.length;
  }
  return stories.join('');
}

const plots: readonly Plot[] = [...friendship, ...growing];

const openings: readonly string[] = [
  'Once upon a time, there was a {kind} named {hero}. {He} was [very|always] {trait}, and {he} loved to {hobby}.',
  'Once there was a {trait} {kind} [named|called] {hero}, who lived {home}.',
  '{hero} was a {kind} who lived {home}. [{He} loved to {hobby}.|Everyone said that {he} was {trait}.]',
  'There once was a {kind} whose name was {hero}. {He} lived {home} with {his} {elder}.',
  'A {trait} {kind} named {hero} lived {home}. [Every day {he} liked to {hobby}.|{He} lived there with {his} {elder}.]',
  'This is a story about a {kind} named {hero}. {hero} was {trait}[|, and {he} liked to {hobby}].',
];

function writeStory(random: Random): string {
  const plot = random.pick(plots);
  const slots = dealSlots(plot, random);
  return `${random.pick(openings)} ${plot.text.trim()}`
    .split(/\n\s*\n/)
    .map(paragraph => expand(paragraph, slots, random))
    .join('\n\n');
}

type Slots = Readonly<Record<string, string>>;

/** The people, the place and the things of a story. */
function dealSlots(plot: Plot, random: Random): Slots {
  const hero = character(random, null);
  const friend = character(random, hero.name);
  const { she, ...elder } = random.pick(words.elders);
  return {
    ...{ hero: hero.name, kind: hero.kind, ...pronouns('', hero.she) },
    ...{ friend: friend.name, 'friend.kind': friend.kind, ...pronouns('friend.', friend.she) },
    ...{ ...elder, ...pronouns('elder.', she) },
    ...random.pick(words.places),
    colour: random.pick(words.colours),
    trait: random.pick(words.traits),
    home: random.pick(words.homes),
    hobby: random.pick(words.hobbies),
    morning: random.pick(words.mornings),
    food: random.pick(words.foods),
    ...Object.assign({}, ...plot.deals.map(deal => random.pick(deal))),
  };
}

/** A child or an animal by another name than `taken`. */
function character(random: Random, taken: string | null): { name: string; kind: string; she: boolean } {
  const she = random.below(2) === 1;
  const child = random.below(5) < 3;
  const names = child ? (she ? words.girls : words.boys) : words.animalNames;
  const name = random.pick(names.filter(candidate => candidate !== taken));
  const being = child ? (she ? 'girl' : 'boy') : random.pick(words.animals);
  return { name, kind: `${random.pick(['little', 'little', 'young'])} ${being}`, she };
}

function pronouns(prefix: string, she: boolean): Slots {
  const [he, him, his, himself] = she ? ['she', 'her', 'her', 'herself'] : ['he', 'him', 'his', 'himself'];
  return { [`${prefix}he`]: he, [`${prefix}him`]: him, [`${prefix}his`]: his, [`${prefix}himself`]: himself };
}

/** A template's text in one line: choices first, the innermost first, then slots, then a or an. */
function expand(template: string, slots: Slots, random: Random): string {
  let text = template;
  for (let before = ''; text !== before; ) {
    before = text;
    text = text.replace(/\[([^[\]]*)\]/g, (_, choices: string) => random.pick(choices.split('|')));
  }
  // A slot's text may hold slots itself.
  for (let before = ''; text !== before; ) {
    before = text;
    text = text.replace(/\{((?:\w+\.)?)(\w+)\}/g, (_, owner: string, name: string) => {
      const asked = owner + name;
      const value = slots[asked] ?? slots[owner + name.toLowerCase()];
      if (value === undefined) throw new Error(`a story template has an unknown slot {${asked}}`);
      return asked in slots ? value : value[0]!.toUpperCase() + value.slice(1);
    });
  }
  return text
    .replace(/\s+/g, ' ')
    .replace(/\b([Aa]) (?=[aeiou])/g, '$1n ')
    .trim();
}
