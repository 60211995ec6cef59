// config.json of a run folder: the Model under the key `malc` and, where transformers has a class for the architecture,
// that class's own fields beside it, so that the folder loads there as it is.
import { readFileSync } from 'node:fs';
import type { Block, Model, Norm } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';

const MODEL_KEYS = [
  'name',
  'vocab_size',
  'max_seq_len',
  'hidden_size',
  'embeddings',
  'blocks',
  'layers',
  'output',
] as const satisfies readonly (keyof Model)[];

/** The object that config.json holds. `endOfText` is the tokenizer's id for the end of a text, null where it has none. */
export function configOf(model: Model, endOfText: number | null): Record<string, unknown> {
  const llama = llamaConfig(model, endOfText);
  return { ...(llama ?? { model_type: 'malc', architectures: [] }), malc: model };
}

/**
 * The Model that a run folder's config.json describes.
 *
 * @throws UserError where the file is missing, is not JSON, or was not written by this version of malc.
 */
export function readModelConfig(path: string): Model {
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UserError(
      code === 'ENOENT'
        ? `there is no ${path}, which says what the model is: copy the whole run folder, or give another one`
        : `${path} cannot be read: ${message}. It was cut short or changed by hand; copy it again`,
    );
  }
  const model = (config as { malc?: Model } | null)?.malc;
  if (!model) throw new UserError(`${path} has no key 'malc': the folder was not written by malc train`);
  const missing = MODEL_KEYS.find(key => model[key] === undefined);
  if (missing !== undefined) {
    throw new UserError(`${path}: the model has no '${missing}'. It was changed by hand; copy the file again`);
  }
  return model;
}

/** The fields of transformers' LlamaForCausalLM where the model is one exactly; otherwise null. */
function llamaConfig(model: Model, endOfText: number | null): Record<string, unknown> | null {
  const [block, ...others] = model.blocks;
  if (!block || others.length > 0 || !isLlamaBlock(block)) return null;
  const { attention, ffn } = block;
  const norm = block.norm!;
  const { embeddings, output } = model;
  if (embeddings.scale !== null || embeddings.learned_positions !== null) return null;
  if (output.bias || !output.norm || !sameNorm(output.norm, norm)) return null;
  if (attention.position_encoding.kind !== 'rope') return null;
  const { theta, scaling } = attention.position_encoding;
  return {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    attention_bias: attention.bias,
    attention_dropout: 0,
    bos_token_id: endOfText,
    eos_token_id: endOfText,
    head_dim: attention.head_dim,
    hidden_act: 'silu',
    hidden_size: model.hidden_size,
    initializer_range: 0.02,
    intermediate_size: ffn.hidden_dim,
    max_position_embeddings: model.max_seq_len,
    mlp_bias: ffn.bias,
    num_attention_heads: attention.num_heads,
    num_hidden_layers: model.layers.length,
    num_key_value_heads: attention.num_kv_heads,
    rms_norm_eps: norm.constants.eps,
    // transformers 4 reads the first two, transformers 5 the third.
    rope_theta: theta,
    rope_scaling: scaling === null ? null : { rope_type: 'linear', factor: scaling },
    rope_parameters:
      scaling === null
        ? { rope_type: 'default', rope_theta: theta }
        : { rope_type: 'linear', rope_theta: theta, factor: scaling },
    tie_word_embeddings: embeddings.tie_weights,
    torch_dtype: 'float32',
    use_cache: true,
    vocab_size: model.vocab_size,
  };
}

function isLlamaBlock(block: Block): boolean {
  const { attention, ffn, norm } = block;
  return (
    block.norm_position === 'pre' &&
    block.residual &&
    norm?.name === 'rmsnorm' &&
    attention.causal &&
    attention.window_size === null &&
    attention.qk_norm === null &&
    ffn.gate &&
    (ffn.activation === 'silu' || ffn.activation === 'swiglu')
  );
}

function sameNorm(a: Norm, b: Norm): boolean {
  return a.name === b.name && a.constants.eps === b.constants.eps;
}
