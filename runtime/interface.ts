// malc.h as the runtime knows it: its version, its numbers, its structs, its functions' prototypes.
import { declareOpaque, declareStruct, type NativeFunction } from './ffi.ts';
import type { SamplerOptions } from './generate/sampler.ts';
import type { NativeOptions } from './native.ts';

/** The version of templates/cpu/malc.h that the runtime speaks. */
export const ABI = 5;
export const OK = 0;
export const NO_MEMORY = 1;
export const DEVICE = 3;
/** What a program that chooses answers instead of a token where a logit is no number. */
export const NOT_A_NUMBER = -2;
export const DATA = 0;
export const GRADIENT = 1;
export const FIRST_MOMENT = 2;
export const SECOND_MOMENT = 3;
export const AVERAGE = 4;
/** The parts of a model's memory, in the order of their numbers. */
export const PARTS = ['weights', 'gradients', 'moments', 'averages', 'forms', 'caches', 'activations'] as const;

declareOpaque('malc_model');
declareStruct('malc_options', {
  max_batch: 'int64_t',
  max_time: 'int64_t',
  max_context: 'int64_t',
  training: 'int32_t',
  threads: 'int32_t',
  seed: 'uint64_t',
  averages: 'int32_t',
  separator: 'int32_t',
});
declareStruct('malc_update', {
  learning_rate: 'float',
  weight_decay: 'float',
  clip_norm: 'float',
  beta1: 'float',
  beta2: 'float',
  epsilon: 'float',
  momentum: 'float',
  average: 'float',
  update: 'int64_t',
});
declareStruct('malc_sampler', {
  temperature: 'double',
  top_p: 'double',
  min_p: 'double',
  repetition_penalty: 'double',
  top_k: 'int64_t',
  seed: 'uint64_t',
});
declareStruct('malc_result', { loss: 'double', gradient_norm: 'double', auxiliary: 'double', scored: 'int64_t' });

export const PROTOTYPES = {
  malc_abi: 'int32_t malc_abi(void)',
  malc_architecture: 'const char *malc_architecture(void)',
  malc_bytes: 'int64_t malc_bytes(const malc_options *options)',
  malc_part_bytes: 'int64_t malc_part_bytes(const malc_options *options, int32_t part)',
  malc_create: 'int malc_create(const malc_options *options, _Out_ malc_model **model)',
  malc_destroy: 'void malc_destroy(malc_model *model)',
  malc_message: 'const char *malc_message(const malc_model *model)',
  malc_parameter_count: 'int32_t malc_parameter_count(void)',
  malc_parameter_name: 'const char *malc_parameter_name(int32_t index)',
  malc_parameter_rank: 'int32_t malc_parameter_rank(int32_t index)',
  malc_parameter_dimension: 'int64_t malc_parameter_dimension(int32_t index, int32_t axis)',
  malc_parameter_decays: 'int32_t malc_parameter_decays(int32_t index)',
  malc_parameter_trained: 'int32_t malc_parameter_trained(int32_t index)',
  malc_parameter_moments: 'int32_t malc_parameter_moments(int32_t index)',
  malc_parameter_address: 'void *malc_parameter_address(malc_model *model, int32_t index, int32_t what)',
  malc_refresh: 'int malc_refresh(malc_model *model)',
  malc_initialize: 'int malc_initialize(malc_model *model, uint64_t seed)',
  malc_swap_averages: 'int malc_swap_averages(malc_model *model)',
  malc_step:
    'int malc_step(malc_model *model, const int32_t *tokens, const int32_t *labels, const int32_t *roles, int64_t micro_batches, int64_t batch, int64_t time, const malc_update *update, _Out_ malc_result *result)',
  malc_evaluate:
    'int malc_evaluate(malc_model *model, const int32_t *tokens, const int32_t *labels, const int32_t *roles, int64_t batch, int64_t time, _Out_ malc_result *result)',
  malc_forward:
    'int malc_forward(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time, float *logits)',
  malc_decode:
    'int malc_decode(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time, const int32_t *starts, const int32_t *counts, float *logits)',
  malc_chooses: 'int32_t malc_chooses(void)',
  malc_choose:
    'int malc_choose(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time, const int32_t *starts, const int32_t *counts, const malc_sampler *samplers, int32_t *chosen)',
  malc_profile_count: 'int32_t malc_profile_count(void)',
  malc_profile_name: 'const char *malc_profile_name(int32_t launch)',
  malc_profile_seconds: 'double malc_profile_seconds(const malc_model *model, int32_t launch)',
  malc_profile_calls: 'int64_t malc_profile_calls(const malc_model *model, int32_t launch)',
  malc_profile_reset: 'void malc_profile_reset(malc_model *model)',
};

export type Functions = Record<keyof typeof PROTOTYPES, NativeFunction>;

/** malc_result. */
export interface NativeResult {
  loss: number;
  gradient_norm: number;
  auxiliary: number;
  scored: number;
}

export function emptyResult(): NativeResult {
  return { loss: 0, gradient_norm: 0, auxiliary: 0, scored: 0 };
}

/** A sampler as malc.h has it, which says by numbers what is absent. */
export const nativeSampler = ({ temperature, topK, topP, minP, repetitionPenalty, seed }: SamplerOptions) => ({
  temperature,
  top_p: topP ?? -1,
  min_p: minP ?? 0,
  repetition_penalty: repetitionPenalty ?? 1,
  top_k: topK ?? 0,
  seed,
});

/** Options as malc.h has them. */
export const nativeOptions = (options: NativeOptions) => ({
  max_batch: options.maxBatch,
  max_time: options.maxTime,
  max_context: options.maxContext,
  training: options.training ? 1 : 0,
  threads: options.threads ?? 0,
  seed: options.seed ?? 0,
  averages: options.averages ? 1 : 0,
  separator: options.separator ?? -1,
});
