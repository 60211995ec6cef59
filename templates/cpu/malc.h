/* malc.h - the C interface of a generated model library.
 *
 * A library holds one architecture: its parameters, gradients, optimizer state and activations live in one arena that
 * malc_create allocates; nothing is allocated afterwards. Every function that can fail returns 0 or one of the codes
 * below and leaves a sentence in malc_message. No function exits the process or prints. A model is used by one thread
 * at a time.
 *
 * Tokens, labels and roles are int32, row-major [batch][time]; labels are already shifted (labels[b][t] is the token
 * that position t must predict) and -1 marks a position that is not scored. Roles, of the messages that tokens belong
 * to, may be null, which is role 0 everywhere; only a model with role embeddings takes others. */
#ifndef MALC_H
#define MALC_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MALC_ABI 5

/* A device that failed, or that is not there: a model whose kernel failed cannot be used any more. */
enum { MALC_OK = 0, MALC_NO_MEMORY = 1, MALC_BAD_ARGUMENT = 2, MALC_DEVICE = 3 };

typedef struct malc_model malc_model;

typedef struct {
  int64_t max_batch;   /* sequences in one micro-batch */
  int64_t max_time;    /* positions in one call */
  int64_t max_context; /* positions that the key-value cache holds; 0 for no cache */
  int32_t training;    /* 0: no gradients, no optimizer state, no saved activations */
  int32_t threads;     /* of the CPU's kernels; 0: as OpenMP chooses */
  uint64_t seed;       /* of what training drops at random */
  int32_t averages;    /* 1: training keeps a moving average of each weight */
  int32_t separator;   /* the token that ends a document, where the program masks documents: no position of a call on
                        * whole sequences sees one of another document. -1 for none, and in other programs */
} malc_options;

/* What an update of the weights goes by. The program's optimizer was chosen when it was compiled; what it has no use
 * for is not read. */
typedef struct {
  float learning_rate;
  float weight_decay;          /* of parameters that decay */
  float clip_norm;             /* global gradient norm above which gradients are scaled down; 0 for none */
  float beta1, beta2, epsilon; /* AdamW's, and the betas of Lion */
  float momentum;              /* of SGD, and of the matrices that Muon moves */
  float average;               /* what the averages of weights keep of themselves, below 1 */
  int64_t update;              /* the number of this update, from 1: the correction of AdamW's moments */
} malc_update;

typedef struct {
  double loss;          /* mean negative log-likelihood in nats over all scored positions */
  double gradient_norm; /* before clipping; 0 where no gradient was computed */
  double auxiliary;     /* what was added to the loss: of routers, and of predictions further ahead */
  int64_t scored;       /* positions that were scored */
} malc_result;

int32_t malc_abi(void);
const char *malc_architecture(void); /* the model's name */

/* Bytes of the arena, which malc_create allocates in whole pages of 2 MiB; -1 for options that it refuses. */
int64_t malc_bytes(const malc_options *options);
/* Of these, what each part of it takes, and -1 likewise. Forms are weights as products read them besides; caches are
 * those of decoding; activations are all else that calls compute. */
enum {
  MALC_WEIGHTS,
  MALC_GRADIENTS,
  MALC_MOMENTS,
  MALC_AVERAGES,
  MALC_FORMS,
  MALC_CACHES,
  MALC_ACTIVATIONS,
  MALC_PARTS
};
int64_t malc_part_bytes(const malc_options *options, int32_t part);
int malc_create(const malc_options *options, malc_model **model);
void malc_destroy(malc_model *model);
/* The last error of this model, or of a failed malc_create where model is null. Never null. */
const char *malc_message(const malc_model *model);

/* Parameters, in a fixed order. Names and shapes are those of the Hugging Face checkpoint ([out, in] for matrices).
 * Parameter 0 is the token embedding, [vocabulary, hidden]. */
int32_t malc_parameter_count(void);
const char *malc_parameter_name(int32_t index);
int32_t malc_parameter_rank(int32_t index);
int64_t malc_parameter_dimension(int32_t index, int32_t axis);
/* 1 where weight decay applies (two or more dimensions). */
int32_t malc_parameter_decays(int32_t index);
/* 0 for what no gradient moves: a bias that balances experts, whose gradient's place holds the experts' loads; and a
 * frozen parameter, which no step changes, and which has neither a gradient nor moments. */
int32_t malc_parameter_trained(int32_t index);
/* How many moments training keeps of it, 0 to 2, as the program's optimizer needs them. */
int32_t malc_parameter_moments(int32_t index);

enum { MALC_DATA = 0, MALC_GRADIENT = 1, MALC_FIRST_MOMENT = 2, MALC_SECOND_MOMENT = 3, MALC_AVERAGE = 4 };
/* Address of a parameter's values, gradient, moments or average; null for what the model does not keep of it: of a
 * frozen parameter it keeps the values alone. After values were written there, malc_refresh must be called, before any
 * other call. Of a device with memory of its own it is a copy on the host, as the parameter is now: after a call that
 * changes parameters, ask again; null where it could not be read. */
float *malc_parameter_address(malc_model *model, int32_t index, int32_t what);

/* Some programs keep weights as products read them besides, rounded to bfloat16 or to 8 bits. This makes them anew, of
 * values that were written at their addresses; functions of this header that change weights do it themselves. */
int malc_refresh(malc_model *model);

/* Random initial weights, the same for the same seed on every machine; moments are cleared, averages the weights. */
int malc_initialize(malc_model *model, uint64_t seed);

/* Exchanges all weights with their averages, so that other calls compute with these; once more puts both back. */
int malc_swap_averages(malc_model *model);

/* One optimizer step over micro_batches x batch sequences, given one after the other. The loss is the mean over all
 * scored positions of the whole step, so micro-batching does not change the mathematics; only a router's loss, which is
 * not a mean over positions, is averaged over micro-batches. What is dropped depends on the seed, on update->update and
 * on each sequence's place in the step. With update null the gradients are computed and left in place, and no weight
 * moves; nor does one where the gradient's norm is not finite. Otherwise an optimizer may leave something else in the
 * gradients' place. */
int malc_step(malc_model *model, const int32_t *tokens, const int32_t *labels, const int32_t *roles,
              int64_t micro_batches, int64_t batch, int64_t time, const malc_update *update, malc_result *result);

/* Loss without gradients. */
int malc_evaluate(malc_model *model, const int32_t *tokens, const int32_t *labels, const int32_t *roles,
                  int64_t batch, int64_t time, malc_result *result);

/* Logits of every position: [batch][time][vocabulary]. */
int malc_forward(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time,
                 float *logits);

/* Appends the first counts[b] of the `time` tokens of each sequence b, all where counts is null, to its key-value
 * cache at position starts[b] and returns the logits that follow the last of them: [batch][vocabulary]. Tokens
 * beyond a count are not read. A sequence with a count of 0, or beyond `batch`, stays as it is; those of a count of
 * 0 get zeros for logits. A start of 0 begins a new text, whatever the other sequences do; any other goes on where
 * the text's last call ended, or before: only a model with a recurrent state, which remembers no earlier position,
 * cannot go back. The work is that of the tokens that there are: a long prompt may go in beside single tokens. A
 * refused call has done nothing. */
int malc_decode(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time,
                const int32_t *starts, const int32_t *counts, float *logits);

/* How a token is chosen. Of all tokens min_p keeps some, of these top_k, and of these top_p; then a random number, of
 * the seed and the new token's position alone, falls on one of them by their probabilities. */
typedef struct {
  double temperature;        /* logits are divided by it; 0 takes the likeliest token, the first of equals */
  double top_p;              /* only the likeliest tokens whose probabilities just reach it; below 0 for all */
  double min_p;              /* only tokens with this share of the likeliest one's probability; 0 for all */
  double repetition_penalty; /* divides positive and multiplies negative logits of the text's tokens; 1 for none */
  int64_t top_k;             /* only so many of the likeliest tokens; 0 for all */
  uint64_t seed;
} malc_sampler;

/* Instead of a token: where the count was 0, and where a logit was not a number. */
enum { MALC_NO_TOKEN = -1, MALC_NOT_A_NUMBER = -2 };

/* 1 where malc_choose chooses tokens: a device with memory of its own, which the logits then do not leave. Of other
 * programs malc_choose is refused; their logits are the caller's to choose by. */
int32_t malc_chooses(void);

/* Does what malc_decode does, and chooses the token that follows each sequence's last, by samplers[b], into chosen[b].
 * The text of a sequence, for the repetition penalty, is what its calls since a start of 0 have brought. */
int malc_choose(malc_model *model, const int32_t *tokens, const int32_t *roles, int64_t batch, int64_t time,
                const int32_t *starts, const int32_t *counts, const malc_sampler *samplers, int32_t *chosen);

/* The profile of a program that was compiled with one: seconds and calls of each launch of each function, as
 * "FUNCTION/KERNEL", since the model was created or the profile reset. A step clears gradients, prepares each
 * micro-batch, takes the norm and updates the weights besides: "step/...". Without a profile the count is 0, and no
 * clock is read. */
int32_t malc_profile_count(void);
/* Null where there is no such launch. */
const char *malc_profile_name(int32_t launch);
double malc_profile_seconds(const malc_model *model, int32_t launch);
int64_t malc_profile_calls(const malc_model *model, int32_t launch);
void malc_profile_reset(malc_model *model);

#ifdef __cplusplus
}
#endif
#endif
