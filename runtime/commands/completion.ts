// malc completion: what a shell offers after TAB, written out from the commands' own options. The scripts ask nobody: they
// are as quick as the shell, and made anew with each version.
import { type Command, type Option, UsageError } from './command.ts';

const shells = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof shells)[number];

/** @param commands all commands, in the order in which help lists them */
export const completionOf = (commands: readonly Command[]): Command => ({
  name: 'completion',
  describe: 'Print what makes a shell complete malc’s commands and options',
  positionals: [{ name: 'shell', describe: shells.join(', '), required: true }],
  options: {},
  examples: [
    ['malc completion bash >> ~/.bashrc', 'bash, from the next shell on'],
    ['malc completion zsh > ~/.zfunc/_malc', 'zsh, with ~/.zfunc in its fpath'],
    ['malc completion fish > ~/.config/fish/completions/malc.fish', 'fish'],
  ],

  async run(args) {
    const shell = shells.find(name => name === args.shell);
    if (shell === undefined) throw new UsageError(`malc completion knows ${shells.join(', ')}, not '${args.shell}'`);
    console.log(scripts[shell](commands));
  },
});

const scripts: Readonly<Record<Shell, (commands: readonly Command[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** The names that an option is typed with. */
function namesOf(name: string, { alias }: Option): string[] {
  return [name, ...[alias ?? []].flat()].map(each => (each.length === 1 ? `-${each}` : `--${each}`));
}

const isFlag = ({ type }: Option): boolean => type === 'boolean';

function bashScript(commands: readonly Command[]): string {
  const cases = commands.map(({ name, options }) => {
    const entries = Object.entries(options);
    const words = entries.flatMap(([each, option]) => namesOf(each, option)).concat('--help');
    const choices = entries.flatMap(([each, option]) =>
      option.choices ? [`        ${namesOf(each, option).join('|')}) words='${option.choices.join(' ')}' ;;`] : [],
    );
    const values = entries.filter(([, option]) => !isFlag(option) && !option.choices);
    const files = values.flatMap(([each, option]) => namesOf(each, option)).join('|');
    return [
      `    ${name})`,
      `      case "$before" in`,
      ...choices,
      ...(files === '' ? [] : [`        ${files}) words= ;;`]),
      `        *) words='${words.join(' ')}' ;;`,
      '      esac ;;',
    ].join('\n');
  });
  return `# bash completion of malc
_malc() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')} --help --version' -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -o bashdefault -F _malc malc`;
}

/** Of what a description says, what a single-quoted text of zsh and its brackets take. */
const zshText = (text: string): string => text.replace(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''");

function zshScript(commands: readonly Command[]): string {
  const list = commands.map(({ name, describe }) => `    '${name}:${zshText(describe)}'`);
  const cases = commands.map(({ name, options }) => {
    const specifications = Object.entries(options).flatMap(([each, option]) => {
      const value = option.choices ? `:value:(${option.choices.join(' ')})` : ':value:_files';
      const repeats = option.array ? '*' : '';
      return namesOf(each, option).map(
        typed => `'${repeats}${typed}[${zshText(option.describe)}]${isFlag(option) ? '' : value}'`,
      );
    });
    return `    ${name}) _arguments ${[...specifications, "'*:file:_files'"].join(' \\\n      ')} ;;`;
  });
  return `#compdef malc
local -a commands=(
${list.join('\n')}
)
if (( CURRENT == 2 )); then
  _describe command commands
else
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
fi`;
}

const fishText = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll("'", "\\'");

function fishScript(commands: readonly Command[]): string {
  const first = commands.map(
    ({ name, describe }) => `complete -c malc -n __fish_use_subcommand -f -a ${name} -d '${fishText(describe)}'`,
  );
  const options = commands.flatMap(({ name: command, options }) =>
    Object.entries(options).map(([name, option]) => {
      const typed = namesOf(name, option).map(each =>
        each.startsWith('--') ? `-l ${each.slice(2)}` : `-s ${each[1]}`,
      );
      const value = isFlag(option) ? '' : option.choices ? ` -x -a '${option.choices.join(' ')}'` : ' -r';
      const where = `-n '__fish_seen_subcommand_from ${command}'`;
      return `complete -c malc ${where} ${typed.join(' ')}${value} -d '${fishText(option.describe)}'`;
    }),
  );
  return ['# fish completion of malc', ...first, ...options].join('\n');
}
