// Plots about growing up: rain and dark, truth and patience, trying again, boasting, wanting too much, joining hands.
import { oneOf, type Plot } from './plot.ts';

const rainyDay: Plot = {
  deals: [
    [
      { craft: 'ship', stuff: 'an old box and a bed sheet', wild: 'sailed across the wide sea', seen: 'a whale' },
      { craft: 'castle', stuff: 'chairs and blankets', wild: 'guarded the gate', seen: 'a dragon' },
      { craft: 'train', stuff: 'seven boxes in a row', wild: 'rolled over the mountains', seen: 'a herd of sheep' },
      { craft: 'rocket', stuff: 'a basket and a lot of paper', wild: 'flew to the moon', seen: 'a smiling star' },
      { craft: 'cave', stuff: 'a table and two rugs', wild: 'looked for treasure', seen: 'a chest full of gold' },
    ],
  ],
  text: `
    {He} had a friend named {friend}, who was a {friend.kind}. [They wanted to|The two friends had planned to] go
    {to} [and have a picnic|with a basket of {food}|to fly a {colour} kite].

    But when the day came and {hero} [looked out of the window|opened the door], it was raining. [The rain fell and
    fell.|Drip, drop, drip, drop!|Everything was grey and wet.] "[Now we cannot go|The whole day is spoiled]!" said
    {hero}, and {he} [stamped {his} foot|pressed {his} nose against the glass|hid under {his} blanket].

    Then there was a knock at the door. It was {friend}, [wet from head to toe|under a big {colour} umbrella].
    "[Come in and get dry|Come in, come in]," said {hero}'s {elder}. "[You do not need the sun to have fun|A rainy
    day is a good day for making things]. What can you [build|make] with {stuff}?" {hero} and {friend} looked at
    each other. "[A {craft}|We can build a {craft}]!" they [cried|shouted].

    They [worked all morning|worked hard] and built a wonderful {craft} out of {stuff}. They painted [a {colour}
    flag|{colour} stripes] on it. {hero} was the captain, and {friend} kept watch. They {wild}. "[Look|Watch out], I
    can see {seen}!" called {friend}. [How they laughed!|They laughed until they could not stop.] [At noon|Later],
    {hero}'s {elder} brought them {food}, and they ate it inside the {craft}.

    When the rain stopped, [nobody noticed|they did not even see it]. "[This was better than {place}|I hope it rains
    again tomorrow]!" said {hero}. [{He} had learned that|So {hero} found out that] [a bad day can turn into a good
    one|you can make your own sunshine|a good idea is better than good weather].`,
};

const nightNoise: Plot = {
  deals: [
    [
      { noise: 'tap, tap, tap', source: 'the window', cause: 'a branch', did: 'knocking on the glass in the wind' },
      { noise: 'scratch, scratch', source: 'the door', cause: 'a {colour} kitten', did: 'trying to come in' },
      { noise: 'hoo, hoo', source: 'the roof', cause: 'an old owl', did: 'singing to its children' },
      { noise: 'rattle, rattle', source: 'the kitchen', cause: 'a tiny mouse', did: 'looking for crumbs' },
      { noise: 'bump, bump', source: 'the stairs', cause: 'a {colour} ball', did: 'rolling down the steps' },
    ],
  ],
  text: `
    {hero} [was not afraid of storms or spiders|liked the day very much], but {he} did not like the dark. [Every
    night {he} slept with {his} {colour} blanket.|At night {he} always left a small lamp on.]

    One night, {friend} came to stay. {friend} was a {friend.kind} and {hero}'s friend. They [ate {food}|told
    stories] and went to bed. [Suddenly|In the middle of the night], {hero} woke up. "{Noise}!" There was something
    at {source}! {hero} [pulled the blanket over {his} head|held {his} breath|began to shake]. "{friend}, [are you
    awake|can you hear that]?" {he} whispered. "[I think it is a ghost|There is a monster in the house]!"

    "{Noise}!" it went again. {friend} was a little afraid too. "[Let us go and look together|We can hold hands and
    look]," {friend.he} said. {hero} [took a deep breath|swallowed hard] and [took the lamp|lit a candle]. {His}
    knees were [weak|shaking], but {he} went, one step, two steps, three steps. The noise came from {source}.
    [Slowly|Very slowly], {he} [lifted the lamp|held up the light].

    [What do you think it was?|And what did they see?] It was only {cause}, {did}! {hero} [began to laugh|laughed
    out loud], and {friend} laughed too. "[So that was our monster|What a funny monster]!" said {friend}. They
    laughed so loudly that {hero}'s {elder} [woke up|came to see]. "[You were both very brave|You went to look all
    by yourselves]," {elder.he} said, and {elder.he} [gave them warm milk|tucked them in again].

    [From that night on, {hero} slept well|After that, {hero} was not so afraid of the dark]. {He} knew that [being
    brave means going to look even when you are afraid|most monsters are very small when you hold up a light|a fear
    gets smaller when you look at it].`,
};

const brokenThing: Plot = {
  deals: [
    oneOf('thing', 'vase, cup, bowl, plate, teapot, jar'),
    oneOf('hide', 'under the bed, behind the curtain, in a box, under a pile of leaves, in the big basket'),
  ],
  text: `
    {His} {elder} had a beautiful {colour} {thing}. [It stood on a shelf in the kitchen.|It was very old, and
    {elder.he} was very fond of it.] "Please be careful with it," {elder.he} [often|always] said.

    {Morning}, {hero} and {friend} played [catch|ball|tag] in the house. {friend} was a {friend.kind} and could run
    very fast. {hero} ran [faster and faster|around the table]. Crash! The {colour} {thing} fell down and broke [in
    two|into three pieces]. "[Oh no|Oh dear]!" said {friend}. {hero} [turned pale|stood very still]. "[Nobody must
    know|We will not tell anyone]," {he} whispered, and {he} hid the pieces {hide}.

    For supper they had {food}, but {hero} could not eat. [{His} tummy hurt.|{He} felt as if {he} had swallowed a
    stone.] "Have you seen my {colour} {thing}?" asked {his} {elder}. {hero} [looked at {his} plate|shook {his}
    head]. [That night {he} could not sleep.|In bed {he} turned from side to side.] {He} thought of what {friend}
    had said: "[A lie gets heavier every day|You will feel better when you tell]."

    So {he} got up and went to {his} {elder}. "[I have to tell you something, {call}|{Call}, I broke your {thing}],"
    {he} said [with tears in {his} eyes|in a small voice]. "[I broke your {colour} {thing}, and I hid it|It was me,
    and I hid the pieces] {hide}. I am very sorry." {His} {elder} was quiet for a while. Then {elder.he} took {hero}
    in {elder.his} arms. "[I am sad about the {thing}, but I am glad that you told me|Thank you for telling the
    truth]," {elder.he} said. "[That was brave|That was not easy]."

    The next day {hero}, {friend} and {his} {elder} [glued the pieces together|mended the {thing} with glue]. [There
    was a crack in it|You could see a thin line], but {hero}'s {elder} [liked it even more than before|put it back
    on the shelf with a smile].

    [{hero} felt light again|{hero} ate a large breakfast that day], for {he} had learned that [it is always better
    to tell the truth|the truth may be hard to say, but it makes the heart light|a thing that is broken can be
    mended, if you are honest].`,
};

const seed: Plot = {
  deals: [
    [
      { plant: 'sunflower', part: 'flower', grew: 'taller than the fence' },
      { plant: 'rose bush', part: 'rose', grew: 'as high as the window' },
      { plant: 'pumpkin', part: 'pumpkin', grew: 'as big as a wheel' },
      { plant: 'bean plant', part: 'flower', grew: 'all the way up to the roof' },
      { plant: 'tulip', part: 'flower', grew: 'straight and strong' },
    ],
    oneOf('patch', 'behind the house, next to the fence, under the window, by the garden path, beside the well'),
  ],
  text: `
    [One day in|One fine morning in|In early] spring, {his} {elder} gave {him} a tiny seed. "[There is a {plant}
    asleep in it|One day it will be a {plant}]," {elder.he} said. "[But you must be patient|You will have to wait]."

    {hero} [dug a hole|made a little hole in the earth] {patch} and put the seed in. {He} gave it water and sat down
    to wait. [Nothing happened.|{He} waited for an hour, but there was nothing to see.] {friend} came by, a
    {friend.kind} who [was always in a hurry|laughed about everything]. "[There is nothing but mud|Your seed is
    asleep for ever]," said {friend}. "[Come and play|Forget about it]!" "[I will come|I will play with you]," said
    {hero}, "but first I must water my seed."

    The next day there was nothing, and the day after that there was nothing. {hero} was [sad|a little angry]. "[Why
    does it not grow|Is it broken], {call}?" {he} asked. "[It is growing under the ground, where you cannot see
    it|It is making roots]," said {his} {elder}. "[Good things take time|Give it water and time]." So {hero} gave it
    water every day, [in sun and in wind|even when {he} was tired]. {He} [sang to it|told it stories|pulled out the
    weeds].

    Then, one morning, there was a tiny green leaf! "[Look, look|Come and see]!" {hero} called. Even {friend} [came
    running|was surprised]. The {plant} grew and grew, until it was {grew}. And at the end of summer it had the most
    beautiful {colour} {part} that [anyone had ever seen|you can think of]. "[You were right to wait|I was wrong],"
    said {friend}. "[May I have a seed too|Will you show me how to do it]?" {hero} gave {friend.him} [three seeds|a
    seed] and [a can of water|a small spade].

    [{hero} was proud of {his} {colour} {part}.|{hero} looked at the {colour} {part} and smiled.] [Good things take
    time|If you care for something a little every day, it will grow|Those who wait and work will see wonders].`,
};

const tryAgain: Plot = {
  deals: [
    [
      {
        skill: 'swim',
        fail: 'went under and swallowed water',
        tip: 'Breathe out slowly',
        done: 'swam all the way across',
      },
      { skill: 'whistle', fail: 'blew nothing but air', tip: 'Make your mouth round', done: 'whistled a whole song' },
      { skill: 'skate', fail: 'fell down on the path', tip: 'Bend your knees', done: 'glided in a big circle' },
      {
        skill: 'ride a bicycle',
        fail: 'fell into a bush',
        tip: 'Look ahead, not down',
        done: 'rode to the corner and back',
      },
      { skill: 'juggle', fail: 'dropped every ball', tip: 'Begin with only two', done: 'kept three balls in the air' },
      {
        skill: 'skip stones',
        fail: 'heard nothing but a plop',
        tip: 'Take a flat stone',
        done: 'made a stone skip five times',
      },
    ],
    oneOf('wear', 'hat, cap, scarf'),
  ],
  text: `
    [More than anything|Most of all], {hero} wanted to learn to {skill}. {His} friend {friend}, a {friend.kind} in a
    {colour} {wear}, could {skill} very well.

    [One day|One morning|After breakfast], {hero} tried it for the first time. {He} {fail}. {He} tried again, and
    again {he} {fail}. "[I will never learn to {skill}|It is too hard for me]!" {he} said and [sat down in the
    grass|walked away]. [{His} eyes were wet.|{He} was very angry with {himself}.]

    {friend} [sat down next to {him}|came after {him}]. "[When I was learning, I did it wrong a hundred times|I
    could not do it at first either]," {friend.he} said. "[Really|Is that true]?" asked {hero}. "[Really|Yes]," said
    {friend}. "{tip}. [I will stay with you|I will help you]." {hero} [dried {his} eyes|stood up again]. "[All
    right|One more time]," {he} said.

    {hero} thought of what {friend} had said, and it [went a little better|did not go so badly]. The next day {he}
    tried again, and the day after that. [Every day it went a little better.|{He} did not give up.] "{tip}," {he}
    said to {himself} each time. And at the end of the week, [all at once|to {his} own surprise], {he} {done}! "[I
    can {skill}|I did it]!" {hero} shouted. {friend} [threw the {colour} {wear} into the air|cheered and jumped up
    and down]. {His} {elder} [came out to watch|clapped] and [made {food} for all of them.|said, "I am proud of
    you!"]

    [{hero} knew now that|So {hero} learned that] [you can learn hard things if you keep trying|every master was a
    beginner once|falling down does not matter if you get up again].`,
};

const boaster: Plot = {
  deals: [
    [
      { rest: 'lay down under a tree and fell asleep', why: 'snoring under the tree' },
      { rest: 'stopped to eat blackberries', why: 'still eating blackberries' },
      { rest: 'stopped to look at {himself} in the water', why: 'still looking into the water' },
      { rest: 'stopped to tell everyone how fast {he} was', why: 'still talking' },
    ],
    oneOf('goal', 'the old oak, the windmill, the stone bridge, the well, the red barn'),
  ],
  text: `
    {hero} was the fastest runner far and wide, and {he} [told everyone about it|never stopped talking about it].
    "[Nobody is as fast as I am|I am faster than the wind]!" {he} said every day.

    {friend} was a {friend.kind} who was [slow but steady|never in a hurry]. "[Let us have a race|I will race you]
    to {goal}," said {friend} {morning}. {hero} laughed [until {his} sides hurt|out loud]. "[You against me|You are
    much too slow]!" {he} said. "[The winner gets|Let the winner have] this {colour} ribbon," said {hero}'s {elder}.
    "One, two, three, go!"

    {hero} ran off like an arrow. Soon {friend} was [only a small dot behind {him}|far behind]. "[I have all the
    time in the world|I have won already]," said {hero}, and {he} {rest}. {friend} did not [stop|rest]. Step by
    step, {friend.he} [went on|kept going], up the hill and down the hill. [The road was long, but {friend} did not
    mind.|"I can do it," {friend.he} said to {friend.himself}.] {friend.He} passed {hero}, who was {why}, and did
    not say a word.

    [At last|Then] {hero} looked up. There was {friend}, [almost at {goal}|only ten steps from {goal}]! {hero} ran
    [as fast as {he} could|faster than ever before], but it was too late. {friend} had won the race! [Everyone
    cheered.|Everyone clapped and called {friend.his} name.] {hero} [hung {his} head|turned red]. Then {he} went to
    {friend} and [held out {his} hand|tied the {colour} ribbon around {friend.his} neck]. "[You were better than
    me|Well done]," {he} said. "[I am sorry that I laughed at you|I should not have laughed]."

    {friend} smiled. "[Tomorrow you can teach me to run fast|Let us share the {colour} ribbon]," {friend.he} said.
    [And they became good friends.|They have been friends ever since.] [Slow and steady wins the race|It is not the
    fast talker who wins, but the one who does not stop|Those who boast should not fall behind].`,
};

const tooMuch: Plot = {
  deals: [
    oneOf('treat', 'berries, plums, cherries, honey cakes, pears, nuts, pancakes, apples'),
    oneOf('vessel', 'basket, bowl, pot, bag'),
  ],
  text: `
    There was nothing {he} liked better than {treat}.

    {Morning}, {his} {elder} gave {him} a {colour} {vessel} full of {treat}. "[Take these to {friend}, and eat them
    together|These are for you and {friend}]," {elder.he} said. {friend} was a {friend.kind} who lived near {place}.
    "[Yes, {call}|I will]," said {hero}, and {he} set out with the {colour} {vessel}.

    [On the way, the {treat} smelled so good.|The {treat} looked so good.] "[One will not matter|I will eat just
    one]," said {hero}. {He} ate one. Then {he} ate [one more|two more]. "[{friend} will not notice|There are so
    many]," {he} said. {He} ate and ate, and [when {he} looked again|before {he} knew it], the {vessel} was empty!
    [And oh, how {his} tummy hurt!|And then {his} tummy began to ache.] {hero} [lay down in the grass|sat down by
    the path] and groaned.

    {friend} found {him} there. "[What has happened|Are you ill], {hero}?" {friend.he} asked. {hero} [looked
    away|turned red]. "[I ate all the {treat}|The {treat} were for both of us, and I ate them all]," {he} said.
    "[Now there are none left for you|And now my tummy hurts]." {friend} looked at the empty {vessel}. {friend.He}
    was [disappointed|sad] for a moment. But then {friend.he} [made {hero} some mint tea|brought {hero} some warm
    water], and {friend.he} stayed until {hero} felt better.

    The next day, {hero} [got up early|went out before breakfast] and worked hard [to fill|until {he} had filled]
    the {colour} {vessel} again. {He} carried it to {friend} and did not eat a single one on the way. "[These are
    all for you|They are for you]," {he} said. "[No|Oh no]," said {friend}, "[they are for both of us|we will share
    them]." And they [sat in the sun|sat on the steps] and ate the {treat} together, [one for you and one for me|one
    by one].

    [{hero} thought that no {treat} had ever tasted so good.|They tasted better than ever before.] [Enough is better
    than too much|What you share tastes sweeter|Too much of a good thing is not good at all].`,
};

const together: Plot = {
  deals: [
    [
      { work: 'tower', of: 'stones', top: 'flag', blow: 'a strong wind', down: 'blew it down' },
      { work: 'sand castle', of: 'sand and shells', top: 'shell', blow: 'a big wave', down: 'washed it away' },
      { work: 'snowman', of: 'snow', top: 'hat', blow: 'a playful dog', down: 'jumped right into it' },
      { work: 'hut', of: 'branches', top: 'roof', blow: 'a heavy rain', down: 'made it fall' },
      { work: 'bridge', of: 'sticks and mud', top: 'rail', blow: 'the fast water', down: 'carried it off' },
    ],
  ],
  text: `
    [One day|One morning|One afternoon|After breakfast], {hero} began to build a {work} of {of}. "[It will be the
    best {work} in the world|Everyone will look at my {work}]," {he} said.

    {friend} came by. {friend.He} was a {friend.kind} with [a lot of good ideas|a warm smile]. "[May I help you|Can
    I help]?" asked {friend}. "No, thank you," said {hero}. "[I can do it alone|I do not need any help]." So
    {friend} began to build a {work} of {friend.his} own, [a few steps away|on the other side]. They both worked
    [all morning|very hard], and [neither said a word|each looked to see who was faster]. {hero} put a {colour}
    {top} on {his} {work}. It was done! But then came {blow} and {down}. And {friend}'s {work} was gone too.

    "[All my work was for nothing|It is not fair]!" cried {hero}. {friend} [sat down next to {him}|sighed]. "[Mine
    was too weak, because I had no one to hold it|I could not do it well alone]," {friend.he} said. {hero} looked at
    what was left and thought. "[You are good at carrying, and I am good at building|If we put everything together,
    there is enough for one big {work}]," {he} said. "[Shall we try it together|What if we build one together]?"

    {friend} [jumped up at once|liked that plan]. One [held|carried] and the other built. {hero} [sang a
    song|counted out loud], and {friend} [told jokes|sang along]. [In a short time|Before evening] there stood a
    {work} that was twice as big and twice as strong. They put the {colour} {top} on it together. Then {blow} came
    again, [and they held each other's hands|and they held their breath]. But this time the {work} [stood firm|did
    not move at all]! {hero}'s {elder} came to see it. "[Who built this fine {work}|Did you do this alone]?"
    {elder.he} asked. "[We did|We did it together]!" they said.

    [Two friends can do more than one|Together you are stronger than alone|Work is lighter when friends share it],
    and [it is more fun too|the joy is twice as big].`,
};

export const growing: readonly Plot[] = [rainyDay, nightNoise, brokenThing, seed, tryAgain, boaster, tooMuch, together];
