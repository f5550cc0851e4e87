"""Did you mean: the field's other words for what this kit names, and the one function that suggests a name.

    suggest("hidden_size", ["d_model", "vocab_size"])      "; did you mean 'd_model'?"

Imports no torch: commands suggest before anything is built.
"""

import difflib
from collections.abc import Sequence

SIZES = {
    "max_seq_len": "context_len context_length context ctx_len block_size n_positions n_ctx max_position_embeddings"
    " seq_len seq_length sequence_length max_length max_len",
    "d_model": "n_embd d_embed emb_dim embed_dim embedding_dim hidden_size hidden_dim model_dim dim width",
    "d_ff": "intermediate_size ffn_dim ffn_hidden_size ffn_hidden_dim n_inner mlp_dim dim_feedforward d_mlp hidden_dim"
    " hidden_size",
    "n_heads": "num_heads n_head num_attention_heads attention_heads heads nhead",
    "n_kv_heads": "num_key_value_heads num_kv_heads n_kv_head n_head_kv n_query_groups kv_heads",
    "head_dim": "head_size d_head dim_head d_k",
    "vocab_size": "n_vocab vocab padded_vocab_size num_embeddings",
    "layers.count": "n_layers n_layer num_layers num_hidden_layers n_blocks num_blocks depth count",
    "count": "n_layers n_layer num_layers num_hidden_layers n_blocks num_blocks depth",
    "n_experts": "num_experts num_local_experts n_routed_experts experts",
    "top_k": "k num_experts_per_tok experts_per_token n_active_experts moe_top_k",
    "k": "top_k",
}
OPTIONS = {
    "window": "sliding_window window_size attention_window",
    "dropout": "dropout_rate attention_dropout resid_pdrop embd_pdrop attn_pdrop hidden_dropout dropout_p",
    "eps": "epsilon layer_norm_epsilon layer_norm_eps rms_norm_eps norm_eps",
    "theta": "rope_theta rotary_base rope_base base",
    "partial_rotary_factor": "fraction rotary_pct rotary_fraction",
    "rotary_dim": "width rotary_ndims",
    "original_max_seq_len": "original original_max_position_embeddings original_max_len",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "beta_fast": "fast",
    "beta_slow": "slow",
    "mscale": "sharpen",
    "mscale_all_dim": "spared",
    "short_factor": "short",
    "long_factor": "long",
    "load_balancing_loss": "balance router_aux_loss_coef aux_loss_alpha aux_loss load_balance",
    "bias_correction": "correction e_score_correction_bias aux_loss_free use_expert_bias moe_use_aux_free",
    "bias_update_rate": "correction_rate bias_update_speed",
    "n_groups": "count n_group num_groups",
    "top_k_groups": "keep topk_group",
    "normalize_top_k": "normalise norm_topk_prob",
    "apply_weights_to": "weigh",
    "mixer_alpha": "mixer_keep alpha deepnorm_alpha",
    "ffn_alpha": "ffn_keep alpha deepnorm_alpha",
    "layer_scalar": "gain layer_scale",
    "softcap": "logit_softcap final_logit_softcapping attn_logit_softcapping attn_logit_softcap",
    "q_lora_rank": "latents.q q_latent_dim",
    "kv_lora_rank": "latents latents.kv kv_latent_dim d_c",
    "qk_nope_head_dim": "plain_dim nope_head_dim",
    "qk_rope_head_dim": "turn_dim rope_head_dim",
    "v_head_dim": "value_dim value_head_dim",
    "scale": "query_pre_attn_scalar attention_multiplier",
    "output_gate": "result gate attn_output_gate attention_gate",
    "output_norm": "attn_sub_norm",
    "qkv": "heads",
    "clip": "clip_qkv",
    "v_scale": "value_scale attention_value_scale",
    "v_norm": "value_norm",
    "k_eq_v": "values attention_k_eq_v",
    "norm_scope": "scope",
    "norm_place": "place",
    "chunk": "attention_chunk_size chunk_size",
    "scale_by_inverse_layer_idx": "by_depth scale_attn_by_inverse_layer_idx",
    "query_scaling": "temperature attn_temperature_tuning attn_scale llama_4_scaling_beta",
    "qk_norm": "heads qk_layernorm use_qk_norm query_key_norm",
    "activation": "hidden_act hidden_activation act act_fn activation_function nonlinearity",
    "bias": "use_bias attention_bias mlp_bias add_bias qkv_bias",
    "final_norm": "ln_f norm_f final_layer_norm",
    "tied": "tie_word_embeddings tie_weights tie_embeddings weight_tying",
    "head.tied": "tie_word_embeddings tie_weights tie_embeddings weight_tying",
    "std": "initializer_range init_std",
    "block": "layer transformer_block decoder_layer",
}
RUN = {
    "train.steps": "max_iters max_steps num_steps n_steps iterations total_steps steps",
    "steps": "max_iters max_steps num_steps n_steps iterations total_steps",
    "train.batch_size": "batch_size bsz micro_batch_size per_device_train_batch_size",
    "batch_size": "bsz micro_batch_size per_device_train_batch_size",
    "train.gradient_accumulation": "accumulate gradient_accumulation gradient_accumulation_steps grad_accum"
    " accumulation_steps",
    "gradient_accumulation": "accumulate gradient_accumulation_steps grad_accum accumulation_steps",
    "train.max_grad_norm": "clip max_grad_norm grad_clip gradient_clipping clip_grad_norm",
    "max_grad_norm": "clip grad_clip gradient_clipping clip_grad_norm",
    "train.document_mask": "documents document_mask intra_document_masking",
    "document_mask": "documents intra_document_masking",
    "train.seed": "seed",
    "seq_len": "context_len context_length block_size sequence_length seq_length max_seq_len max_length",
    "lr": "learning_rate max_lr",
    "optimizer.lr": "learning_rate max_lr lr",
    "weight_decay": "wd",
    "optimizer.weight_decay": "weight_decay wd",
    "warmup": "warmup_steps warmup_iters num_warmup_steps",
    "schedule.warmup": "warmup_steps warmup_iters num_warmup_steps warmup",
    "evaluate": "eval validation",
    "evaluate.every": "eval_interval eval_every eval_steps",
    "evaluate.batches": "eval_iters eval_batches",
    "checkpoint": "checkpointing save",
    "checkpoint.every": "save_interval save_every save_steps",
    "data": "dataset corpus train_data",
    "hardware.device": "device",
    "hardware.precision": "precision mixed_precision dtype",
    "hardware.compile": "compile torch_compile",
    "hardware.activation_checkpointing": "recompute activation_checkpointing gradient_checkpointing",
    "activation_checkpointing": "recompute gradient_checkpointing activation_recomputation",
    "hardware.optimizer_in_backward": "step_in_backward optimizer_in_backward optimizer_in_bwd",
    "optimizer_in_backward": "step_in_backward optimizer_in_bwd",
}
PARTS = {
    "attention": "mha gqa mqa attn self_attention causal_self_attention multi_head_attention multihead_attention"
    " grouped_query_attention multi_query_attention",
    "mla": "latent multi_head_latent_attention latent_attention",
    "differential": "diff_attn diff_transformer differential_attention",
    "gated": "swiglu geglu reglu glu gated_mlp",
    "mlp": "feed_forward feedforward dense",
    "moe": "mixture_of_experts mixture sparse_moe switch",
    "silu": "swish swiglu",
    "gelu": "geglu",
    "relu": "reglu",
    "gelu_tanh": "gelu_new gelu_pytorch_tanh gelu_fast",
    "relu_squared": "relu2 squared_relu",
    "rms_norm": "rms root_mean_square_norm",
    "layer_norm": "ln",
    "none": "nope identity off no",
    "rope": "rotary rotary_embedding rotary_position_embedding",
    "sinusoidal": "sin sincos sinusoid positional_encoding wpe",
    "learned": "absolute position_embedding learned_absolute",
    "alibi": "linear_bias attention_with_linear_biases",
    "pre_norm": "pre_ln pre_layer_norm",
    "post_norm": "post_ln post_layer_norm",
    "token": "wte word token_embedding_table",
    "lm": "lm_head unembedding model_out_linear_layer",
    "adamw": "adam",
    "sgd": "momentum",
    "cosine": "cosine_annealing cosine_decay cosine_with_warmup warmup_cosine",
    "linear": "linear_decay linear_with_warmup",
    "constant": "fixed constant_with_warmup",
    "bpe": "byte_level_bpe tiktoken sentencepiece gpt2",
    "bytes": "byte char characters character_level",
    "text": "txt file files",
    "jsonl": "json json_lines",
    "greedy": "argmax",
    "top_p": "nucleus",
    "sdpa": "flash flash_attention scaled_dot_product_attention",
    "flex": "flex_attention",
    "eager": "math naive",
    "yarn": "yarn_rope",
    "ntk": "ntk_aware",
}
GENERATION = {
    "max_new_tokens": "max_length max_tokens num_tokens n_tokens",
    "samplers": "do_sample sampler logits_processor",
    "stop": "eos_token_id stop_token_ids eos",
}
FAMILIES = {
    "mixer": "attention attn self_attention mha gqa mqa token_mixer",
    "ffn": "mlp feed_forward feedforward ff",
    "position": "positional_encoding position_embedding positions pe rope rotary",
    "norm": "normalization layer_norm rms_norm",
    "block": "layer transformer_block decoder_layer",
    "embedding": "wte embed token_embedding",
    "head": "lm_head output unembedding",
    "init": "initializer initialization weight_init",
    "kernel": "attn_implementation attention_backend backend",
    "router": "gate gating experts",
    "scaling": "rope_scaling",
    "schedule": "scheduler lr_scheduler lr_schedule",
    "optimizer": "optim opt",
    "objective": "loss criterion",
    "sampler": "sampling decoding",
    "tracker": "logger logging wandb",
    "dataset": "data corpus",
    "tokenizer": "tokenization vocab",
    "models": "specs configs zoo presets",
}
COMMANDS = {
    "list": "ls parts catalog",
    "show": "info describe inspect",
    "check": "validate lint verify test",
    "explain": "why where",
    "build": "cost estimate summary params count memory info describe",
    "new": "init create start scaffold",
    "train": "fit pretrain finetune fine_tune run resume",
    "generate": "sample complete infer predict chat prompt inference run",
    "bench": "benchmark speed perf profile",
    "import": "load from_hf convert",
    "export": "save to_hf convert push",
    "doctor": "env diagnose system",
    "schema": "json_schema",
}

MEANT = 3
"""Names that a message suggests at most."""
LISTED = 24
"""Choices that a message lists at most; beyond it none is listed."""


def _table() -> dict[str, tuple[str, ...]]:
    """For each word of the field, the kit's words."""
    found: dict[str, tuple[str, ...]] = {}
    for group in (SIZES, OPTIONS, RUN, PARTS, GENERATION, FAMILIES, COMMANDS):
        for ours, theirs in group.items():
            for word in theirs.split():
                found[_bare(word)] = tuple(dict.fromkeys((*found.get(_bare(word), ()), ours)))
    return found


def suggest(word: str, choices: Sequence[str]) -> str:
    """`; did you mean 'x'?` or, when nothing is near, `; choose from a, b, c`; empty without choices."""
    near = likely(word, choices)
    if near:
        return f"; did you mean {', '.join(map(repr, near[:-1]))}{' or ' if near[1:] else ''}{near[-1]!r}?"
    return f"; choose from {', '.join(choices)}" if 0 < len(choices) <= LISTED else ""


def likely(word: str, choices: Sequence[str]) -> list[str]:
    """What `word` most likely means among `choices`: the same letters, another word for it, or a typing error."""
    bare = _bare(word)
    meant = meaning(word, choices) or [c for c in choices if len(bare) > 2 and _bare(c).startswith(bare)]
    if 0 < len(meant) <= MEANT:
        return meant
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    known = [w for w in WORDS if _meant(w, choices)]
    close = difflib.get_close_matches(bare, known, n=1, cutoff=0.85)
    if close and not (near and _alike(word, near[0]) >= _alike(bare, close[0])):
        return _meant(close[0], choices)[:MEANT]
    return near


def meaning(word: str, choices: Sequence[str]) -> list[str]:
    """The choices of the same letters as `word`; else those that are another word for it."""
    same = [c for c in choices if _bare(c) == _bare(word)]
    return same[:1] or _meant(_bare(word), choices)[:MEANT]


def kits(word: str) -> list[str]:
    """All of the kit's words for a word of the field, itself first."""
    return [word, *WORDS.get(_bare(word), ())]


def _meant(bare: str, choices: Sequence[str]) -> list[str]:
    """The kit's words for a word of the field, those that may stand here: `layers.count` where `layers` may."""
    return [ours for ours in WORDS.get(bare, ()) if ours.partition(".")[0] in choices]


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _bare(word: str) -> str:
    return "".join(c for c in word.lower() if c not in "_- ")


WORDS = _table()
"""The kit's words for each word of the field, which is written without `_`."""
