// Plots about friends: something lost, something shared, someone small, a present, a stranger, a walk too far.
import { oneOf, type Plot } from './plot.ts';

const lostThing: Plot = {
  deals: [
    oneOf('thing', 'ball, kite, scarf, toy boat, bucket, whistle, hat, lantern, spinning top, blanket, mitten, ribbon'),
    [
      { rest: 'by the big tree', spot: 'in the tall grass behind the tree' },
      { rest: 'on the wooden bench', spot: 'under the bench, half covered with leaves' },
      { rest: 'beside the stone wall', spot: 'in a crack between two stones of the wall' },
      { rest: 'near the gate', spot: 'behind the gate, next to a sleeping snail' },
      { rest: 'under the apple tree', spot: 'high up in a branch of the apple tree' },
      { rest: 'next to the blackberry bush', spot: 'deep inside the blackberry bush' },
      { rest: 'on the little bridge', spot: 'in the reeds below the bridge' },
    ],
  ],
  text: `
    {His} favourite thing [of all|in the whole world] was a {colour} {thing}. [{He} took it everywhere.|{He} never
    went out without it.|It had been a present from {his} {elder}.]

    {Morning}, {hero} went {to} [to play|with the {colour} {thing}|all alone]. {He} [ran and jumped and sang|chased
    the leaves|played all sorts of games] until {he} was [tired|hungry|out of breath]. But when it was time to go
    home, the {colour} {thing} was gone! {hero} looked [left and right|up and down|here and there], but [{he} could
    not find it|it was nowhere to be seen]. [A big tear ran down {his} nose.|{He} sat down and began to cry.|{He}
    felt very sad.]

    [Just then|A little later|After a while], {friend} came by. {friend} was a {friend.kind} and {hero}'s best
    friend. "[What is wrong|Why are you so sad], {hero}?" asked {friend}. "I have lost my {colour} {thing}," said
    {hero}. "[Do not worry|Do not cry|Cheer up]," said {friend}. "[We will look for it together|I will help you find
    it|Two can look better than one]. Where did you [stop to rest|sit down]?" {hero} [thought and thought|closed
    {his} eyes and thought hard]. "It was {rest}," {he} said.

    So [the two friends|{hero} and {friend}] [walked back|ran back|went back the same way]. [They looked high and
    low.|They looked very carefully.|] And there it was, {spot}! "My {thing}!" cried {hero}. "[You found it|We found
    it]! Thank you, {friend}!" {He} was so happy that {he} [gave {friend} a big hug|danced around {friend.him}|could
    not stop smiling]. Then {hero} let {friend} [carry the {thing} all the way home|have the {thing} until the next
    day|hold the {colour} {thing} for a while].

    [{hero} learned that|And so {hero} found out that|That night {hero} told {his} {elder} that] [a good friend
    helps you look|what is lost can be found when friends help|a worry is only half as big when you share it].`,
};

const sharing: Plot = {
  deals: [oneOf('thing', 'ball, kite, drum, toy boat, bucket, whistle, spinning top, toy train, puppet, hoop')],
  text: `
    {Morning}, {his} {elder} gave {him} a [new|shiny new|beautiful] {colour} {thing}. "[It is only mine|Nobody else
    may touch it]!" said {hero}, and {he} took it {to}.

    {friend} was {at} too. {friend} was a {friend.kind} who lived [next door|across the lane|close by]. {friend.He}
    saw the {colour} {thing} and [smiled|came closer|stopped to look]. "[What a lovely {thing}|I like your
    {thing}]," said {friend}. "May I play with it[, please| for a little while|, just once]?" "No!" said {hero}.
    "[It is mine|I want to play with it alone]." {friend} [looked down at the ground|said nothing|sighed] and went
    away.

    {hero} played with the {thing} [all by {himself}|alone]. At first it was fun. But soon [it was not fun any
    more|{he} felt lonely|the game became dull]. [There was nobody to laugh with.|There was nobody to say "Well
    done!"|Everything was very quiet.] {hero} [thought of {friend}'s sad face|remembered how sad {friend} had
    looked], and {his} heart felt heavy.

    So {he} [ran|went] to look for {friend} and found {friend.him} [under a tree|on a stone by the path|behind the
    fence]. "I am sorry," said {hero}. "[Would you like to play with me|Shall we play with the {colour} {thing}
    together|Would you like to have the first turn]?" {friend} [jumped up|smiled a big smile|nodded]. "[Yes,
    please|Oh yes]!" {friend.he} said. They [took turns|played together] until [the sun went down|the stars came
    out|it was time for supper], and [they laughed and laughed|it was the best game of all].

    [From that day on, {hero} shared {his} {colour} {thing} with {friend}|{hero} never said "only mine" again],
    because [a toy is more fun with a friend|sharing made both of them happy|happiness grows when it is shared].`,
};

const smallAnimal: Plot = {
  deals: [
    [
      { small: 'bird', need: 'had hurt its wing', cry: 'cheep', left: 'flew', bed: 'nest' },
      { small: 'kitten', need: 'was cold and wet', cry: 'mew', left: 'ran', bed: 'basket' },
      { small: 'butterfly', need: 'had been caught in the rain', cry: 'flip', left: 'flew', bed: 'bed' },
      { small: 'duckling', need: 'had hurt its foot', cry: 'peep', left: 'waddled', bed: 'nest' },
      { small: 'puppy', need: 'was hungry and tired', cry: 'woof', left: 'ran', bed: 'basket' },
      { small: 'cricket', need: 'had hurt its leg', cry: 'chirp', left: 'hopped', bed: 'bed' },
    ],
  ],
  text: `
    {Morning}, {hero} was {at} when {he} heard a [tiny|very small|soft] sound. "{Cry}, {cry}!" [What could it be?|It
    came from behind a bush.|It came from under a leaf.]

    {hero} [looked around|bent down|went closer] and found a little {colour} {small}. The {small} {need}. "[You poor
    thing|Oh, you poor little {small}]," said {hero}. "[Do not be afraid|I will take care of you]." {He} [picked it
    up|lifted it up] very gently and [carried it home|took it home in {his} hat|held it close to keep it warm].

    At home, {his} {elder} [looked at the {small}|put on {elder.his} glasses]. "It needs [water and rest|something
    to eat and a warm place|time and a little love]," {elder.he} said. So {hero} made a soft {bed} [of hay|out of an
    old scarf|of moss and leaves] and gave the {small} [something to drink|a little to eat]. {His} friend {friend},
    a {friend.kind}, came [every day|every evening] to help. [On the third day|After a few days|By the end of the
    week], the {colour} {small} was well again. "{Cry}!" it said, and [off it {left}|away it {left}]. {hero} was [a
    little sad|sad and glad at the same time], but {he} [knew it was right|waved until it was gone].

    [Weeks later|Some time later|One evening], {hero} and {friend} [lost their way|could not find the way home] [in
    the fog|in the dark|in the deep woods]. "[Which way should we go|Where is the path]?" said {friend}. Then they
    heard something. "{Cry}, {cry}!" It was the little {colour} {small}! It went ahead of them, [step by
    step|slowly], and [showed them the way|led them] home.

    "[Now the {small} has helped us|It did not forget us]!" said {hero}. [And that is how {hero} learned that|{His}
    {elder} smiled and said that] [kindness comes back to you|even the smallest friend can be a great help|no kind
    deed is ever lost].`,
};

const present: Plot = {
  deals: [
    [
      { wish: 'scarf', made: 'knitted it with {his} own hands', from: 'a ball of {colour} wool', use: 'keeps me warm' },
      { wish: 'boat', made: 'cut and painted it', from: 'a piece of wood', use: 'floats so well' },
      { wish: 'kite', made: 'folded and glued it', from: 'paper and two sticks', use: 'flies so high' },
      { wish: 'cup', made: 'shaped it and painted it', from: 'clay from the river', use: 'holds so much tea' },
      { wish: 'pillow', made: 'sewed it, stitch by stitch', from: 'an old {colour} curtain', use: 'is so soft' },
    ],
  ],
  text: `
    {His} best friend was {friend}, a {friend.kind}. The next day was {friend}'s birthday, and {hero} wanted to give
    {friend.him} [something special|the best present in the world].

    {Hero} went to the shop. In the window was a {colour} {wish}. [It was just right for {friend}.|{friend} had
    always wanted a {wish}.] But {hero} had only [one coin|two coins], and the {wish} cost [ten|twenty]. "[I am
    sorry|That is not enough]," said the [old goat in the shop|woman in the shop|man in the shop]. {hero} walked
    home [slowly|with {his} head down]. "[I have no present for {friend}|What shall I do now], {call}?" {he} said.

    {His} {elder} [thought for a moment|opened a big cupboard]. "[The best presents do not come from a shop|You have
    two clever hands]," {elder.he} said. "[Could you make a {wish} yourself|Why not make one]?" So {hero} took
    {from} and went to work. {He} {made}. It took [all evening|the whole afternoon]. The {wish} was [a little
    crooked|not quite straight], but it was {colour}, and {hero} had put all {his} love into it.

    [At the party|The next day], {friend} opened the [box|paper] and [said nothing at first|held {friend.his}
    breath]. {hero} [was afraid that {friend} did not like it|looked at the floor]. "Did you make this {colour}
    {wish} [yourself|for me]?" asked {friend}. {hero} nodded. Then {friend} [hugged {him}|laughed with joy]. "[It is
    the best present of all|I love it]!" {friend.he} said. "It {use}!" They [ate {food}|danced and sang] until
    [late|evening], and {friend} [would not put the {wish} down|showed the {wish} to everyone].

    [{hero} understood that|That is how {hero} learned that] [a present from the heart is worth more than gold|it is
    love that makes a present great|what you make yourself is the finest present].`,
};

const newFriend: Plot = {
  deals: [
    oneOf('thing', 'kite, drum, toy boat, hat, bucket, marble, lantern, whistle'),
    oneOf('far', 'the mountains, a far land, the other side of the sea, the big city, a snowy island'),
  ],
  text: `
    [{He} often played {at}.|{He} knew everyone {at}.]

    {Morning}, somebody new was {at}. It was a {friend.kind} [with a {colour} {thing}|who held a {colour} {thing}].
    {friend.He} sat all alone and [did not look up|looked at the ground]. [Nobody spoke to {friend.him}.|The others
    ran past {friend.him}.] {hero} [wanted to say hello, but {he} was shy|did not know what to say]. "[What if the
    new one does not like me|I do not know how to begin]," {he} thought.

    {hero} asked {his} {elder}. "[Say hello and tell your name|Begin with one kind word]," said {his} {elder}.
    "[That is all you need|It is easier than you think]." So {hero} [took a deep breath and went over|walked over,
    step by step]. "Hello," {he} said. "[I am|My name is] {hero}. What is your name?" The {friend.kind} [looked
    up|smiled a tiny smile]. "[I am|My name is] {friend}," {friend.he} said. "[I come|We moved here] from {far}[,
    and I know nobody here|. I miss my old friends]."

    "[I like your {thing}|What a fine {thing}]," said {hero}. "{Colour} is my favourite colour." "[Mine too|It is
    mine too]!" said {friend}, and {friend.his} eyes [shone|grew bright]. {friend} showed {hero} [how the {thing}
    worked|all that the {colour} {thing} could do], and {hero} showed {friend} [the best hiding place|the path to
    {place}|where the blackberries grew]. [Soon they were laughing.|Before long they were playing as if they had
    always been friends.]

    "[Will you come back tomorrow|Shall we play again tomorrow]?" asked {hero} when [the sun went down|it was
    getting late]. "[Of course|Yes, every day]!" said {friend}. [{hero} ran home and told {his} {elder}
    everything.|"I have a new friend from {far}!" {hero} told {his} {elder}.]

    [One kind word is enough|All it takes is a friendly hello|A little courage is all it takes] to [make a
    friend|turn a stranger into a friend].`,
};

const tooFar: Plot = {
  deals: [
    [
      { sight: 'a {colour} butterfly', wise: 'an old owl', sat: 'on a branch' },
      { sight: 'a {colour} bird', wise: 'a grey toad', sat: 'on a mushroom' },
      { sight: 'a {colour} dragonfly', wise: 'an old deer', sat: 'between the trees' },
      { sight: 'a {colour} leaf in the wind', wise: 'a wise old crow', sat: 'on a dead tree' },
    ],
  ],
  text: `
    "[Stay on the path|Do not leave the path|Never leave the path]," {his} {elder} always said. {hero}
    [promised|said that {he} would not forget].

    {Morning}, {hero} and {friend} went into the woods to look for [berries|nuts|mushrooms]. {friend} was a
    {friend.kind} and a good friend. Suddenly {hero} saw {sight}. "[Look, how pretty|I want to see it from close
    by]!" {he} called and ran after it. "[Wait, stay on the path|Come back, {hero}]!" said {friend}. But {hero} ran
    [on and on|deeper and deeper into the woods], and {friend} ran after {him}. [When they stopped|Then it was gone,
    and when they looked around], there was no path any more. All the trees looked the same.

    "[It is my fault|I am so sorry]," said {hero}, and {his} voice was very small. "[I should have listened|I did
    not keep my promise]." {friend} took {his} hand. "[We are together|Let us stay together and ask for help],"
    {friend.he} said. [It grew dark.|The sun went down.] Then they saw {wise}, who sat {sat}.

    "[Please|Excuse me], can you tell us the way home?" asked {hero}. "[Children who ask politely shall have an
    answer|You were right to ask]," said {wise}. "[Follow the stream|Follow the sound of the water], and do not let
    go of each other." They thanked {wise} and [walked along the stream|did as they were told]. [At last|After a
    long time] they saw a light. It was {hero}'s {elder}, with a lamp in {elder.his} hand! "[There you are|I was so
    worried]!" {elder.he} said, and {elder.he} gave both of them [a hug|{food}].

    "[I will stay on the path, {call}|I will keep my promises now]," said {hero}. [And {he} always did.|And {he}
    meant it.] [If you lose your way, stay together and ask for help.|It is wise to listen, and brave to say sorry.]`,
};

export const friendship: readonly Plot[] = [lostThing, sharing, smallAnimal, present, newFriend, tooFar];
