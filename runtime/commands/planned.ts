// Commands that users of hermes-llm know and malc does not have yet: refused by name, with what to do meanwhile.

/** What to say of each, after `there is no command NAME yet: `. */
export const plannedCommands: Readonly<Record<string, string>> = {
  dpo:
    'malc learns from texts, and not from preferences. Meanwhile, train on the answers that were chosen: ' +
    'malc train --checkpoint RUN --data chosen.jsonl --lr 1e-5',
};
