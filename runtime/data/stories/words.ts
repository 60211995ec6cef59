// Who and what the stories are about: names, animals, elders, places and things, as stories.ts deals them out.

const list = (words: string): readonly string[] => words.trim().split(/,\s+/);

export const girls = list(`
  Lily, Anna, Mia, Rosa, Nora, Ella, Ruby, Clara, Maya, Ivy, Zoe, Lucy, Emma, Hana, Priya, Amara, Ada, Greta, Nina,
  Sofia, Molly, Tessa, Leila, June
`);

export const boys = list(`
  Tom, Ben, Max, Leo, Sam, Finn, Oscar, Hugo, Noah, Theo, Jack, Omar, Luca, Ravi, Kofi, Milo, Eli, Felix, Karl,
  Toby, Peter, Ivan, Jonah, Kenji
`);

/** Names of animals, which may be a he or a she. */
export const animalNames = list(`
  Pip, Bramble, Hazel, Biscuit, Clover, Button, Poppy, Nutmeg, Acorn, Pebble, Willow, Bean, Fern, Maple, Tuck, Rolo,
  Sunny, Dot, Barley, Pudding, Thistle, Pepper, Wren, Mitten
`);

export const animals = list(`
  rabbit, fox, bear, mouse, hedgehog, duck, squirrel, frog, cat, dog, otter, badger, turtle, lamb, pony, goat,
  beaver, owl
`);

export const traits = list('kind, curious, cheerful, quiet, brave, gentle, busy, clever, shy, playful, careful, merry');

export const colours = list('red, blue, green, yellow, purple, orange, pink, white, silver, golden');

/** Who looks after the hero, and how they are called. */
export const elders = [
  { elder: 'mother', call: 'Mama', she: true },
  { elder: 'father', call: 'Papa', she: false },
  { elder: 'grandmother', call: 'Grandma', she: true },
  { elder: 'grandfather', call: 'Grandpa', she: false },
] as const;

/** A place, being there, and going there. */
export const places = [
  { place: 'the park', at: 'in the park', to: 'to the park' },
  { place: 'the garden', at: 'in the garden', to: 'into the garden' },
  { place: 'the forest', at: 'in the forest', to: 'into the forest' },
  { place: 'the river', at: 'by the river', to: 'down to the river' },
  { place: 'the beach', at: 'on the beach', to: 'to the beach' },
  { place: 'the hill', at: 'on the hill', to: 'up the hill' },
  { place: 'the meadow', at: 'in the meadow', to: 'out to the meadow' },
  { place: 'the pond', at: 'by the pond', to: 'to the pond' },
  { place: 'the orchard', at: 'in the orchard', to: 'to the orchard' },
  { place: 'the village green', at: 'on the village green', to: 'to the village green' },
  { place: 'the old mill', at: 'near the old mill', to: 'to the old mill' },
  { place: 'the farm', at: 'on the farm', to: 'over to the farm' },
] as const;

export const homes = list(`
  in a small house by the river, at the edge of a quiet village, on a farm behind the hill, near a deep green
  forest, in a little house with a {colour} door, at the end of a long lane, under the tallest tree in the valley,
  not far from the sea
`);

export const hobbies = list(`
  sing, draw, climb trees, count the stars, tell stories, splash in puddles, collect smooth stones, watch the
  clouds, run very fast, bake with {his} {elder}, listen to the birds, dance in the kitchen, build things out of
  sticks
`);

export const mornings = list(`
  one day, one morning, one afternoon, one sunny morning, one windy afternoon, one warm day, one bright summer day,
  one cold autumn morning, one fine day in spring, on the first day of spring, early one morning, after breakfast
  one day, on a clear winter morning
`);

export const foods = list(`
  apple pie, warm bread, vegetable soup, honey cakes, pancakes, plum jam, berry tart, cheese and bread, nut cookies,
  pear cake, hot porridge, carrot stew
`);
