"""Gemma 3 in JAX on the CPU: f32 weights dequantised from the GGUF file, jitted prefill, lax.scan over the generated tokens.

One function, step(), takes T tokens at a position: the whole prompt in prefill, one token in decode. Shapes: T tokens, C cached
tokens, D the width, H query heads in groups of G per key/value head K, W = head width. Local layers look at a slice of the cache.
"""

import functools
import importlib.metadata
import os
import time

import engine

CHUNK = 512  # of a prompt that is only context: a long one attended to at once would take C * C * H floats


def use_threads(threads):
    """XLA sizes its pool by the CPUs that this process may run on, once."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["JAX_PLATFORMS"] = "cpu"


class Config:
    """What the model needs of the file's metadata."""

    def __init__(self, fields):
        def get(key, otherwise=None):
            field = fields.get(f"gemma3.{key}")
            return otherwise if field is None else field.contents()

        if fields["general.architecture"].contents() != "gemma3":
            raise SystemExit("only Gemma 3 is written down here")
        self.layers, self.width = get("block_count"), get("embedding_length")
        self.heads, self.kv_heads = get("attention.head_count"), get("attention.head_count_kv")
        self.head_width = get("attention.key_length")
        self.epsilon = get("attention.layer_norm_rms_epsilon")
        self.window = get("attention.sliding_window")
        self.base = get("rope.freq_base")
        self.stretch = get("rope.scaling.factor", 1.0)  # of positions, in global layers
        self.bos = fields["tokenizer.ggml.bos_token_id"].contents()

    def is_local(self, layer):
        return layer % 6 != 5


def read_weights(model):
    """Config; {name: f32 array}, matrices as [outputs, inputs]."""
    import gguf
    import jax.numpy as jnp

    reader = gguf.GGUFReader(model)
    return Config(reader.fields), {t.name: jnp.asarray(gguf.dequantize(t.data, t.tensor_type)) for t in reader.tensors}


def make_step(config):
    import jax
    import jax.numpy as jnp
    from jax import lax

    def norm(x, scale):
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + config.epsilon) * scale

    def rope(x, positions, local):  # x [T, heads, W]
        half = config.head_width // 2
        base, stretch = (10000.0, 1.0) if local else (config.base, config.stretch)
        angle = positions[:, None, None] / stretch * base ** (-jnp.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], -1)

    def attention(q, k, v, positions, local):  # q [T, H, W]; k, v [C, K, W]
        tokens, first = q.shape[0], 0
        if local:
            span = min(k.shape[0], config.window + tokens - 1)
            first = jnp.clip(positions[-1] + 1 - span, 0, k.shape[0] - span)
            k, v = (lax.dynamic_slice_in_dim(x, first, span) for x in (k, v))
        distance = positions[:, None] - (first + jnp.arange(k.shape[0]))
        visible = (distance >= 0) & (distance < config.window) if local else distance >= 0
        q = q.reshape(tokens, config.kv_heads, -1, config.head_width)
        scores = jnp.einsum("tkgw,ckw->kgtc", q, k) * config.head_width**-0.5
        share = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), -1)
        return jnp.einsum("kgtc,ckw->tkgw", share, v).reshape(tokens, -1)

    def step(weights, cache, ids, position):
        """ids [T] at position.. -> the cache with them, the greedy next id."""
        positions = position + jnp.arange(ids.shape[0])
        x = weights["token_embd.weight"][ids] * config.width**0.5
        grown = []
        for layer, (keys, values) in enumerate(cache):
            w = {name: weights[f"blk.{layer}.{name}.weight"] for name in LAYER}
            local = config.is_local(layer)
            h = norm(x, w["attn_norm"])
            q = (h @ w["attn_q"].T).reshape(-1, config.heads, config.head_width)
            k, v = ((h @ w[name].T).reshape(-1, config.kv_heads, config.head_width) for name in ("attn_k", "attn_v"))
            q = rope(norm(q, w["attn_q_norm"]), positions, local)
            k = rope(norm(k, w["attn_k_norm"]), positions, local)
            keys, values = (lax.dynamic_update_slice_in_dim(c, new, position, 0) for c, new in ((keys, k), (values, v)))
            grown.append((keys, values))
            h = attention(q, keys, values, positions, local) @ w["attn_output"].T
            x = x + norm(h, w["post_attention_norm"])
            h = norm(x, w["ffn_norm"])
            h = jax.nn.gelu(h @ w["ffn_gate"].T, approximate=True) * (h @ w["ffn_up"].T) @ w["ffn_down"].T
            x = x + norm(h, w["post_ffw_norm"])
        last = norm(x[-1], weights["output_norm.weight"])
        return grown, jnp.argmax(weights["token_embd.weight"] @ last).astype(jnp.int32)

    return step


LAYER = ("attn_norm attn_q attn_k attn_v attn_q_norm attn_k_norm attn_output post_attention_norm "
         "ffn_norm ffn_gate ffn_up ffn_down post_ffw_norm").split()


class Jax:
    """Gemma 3 written in JAX, f32 weights."""

    note = "f32 weights dequantised from the file"

    def __init__(self, model, threads, tests):
        use_threads(threads)
        import jax
        import jax.numpy as jnp

        self.jnp = jnp
        start = time.perf_counter()
        self.config, self.weights = read_weights(model)
        jax.block_until_ready(self.weights)
        self.load_s = time.perf_counter() - start
        self.vocab, self.bos = self.weights["token_embd.weight"].shape[0], self.config.bos
        self.version = f"jax {importlib.metadata.version('jax')}"
        step = make_step(self.config)

        def generate(weights, cache, token, position, n):
            def body(carry, _):
                cache, token, position = carry
                cache, following = step(weights, cache, token[None], position)
                return (cache, following, position + 1), token

            carry, ids = jax.lax.scan(body, (cache, token, position), None, length=n)
            return carry[0], ids

        self.step = jax.jit(step, donate_argnums=1)
        self.generate = jax.jit(generate, static_argnames="n", donate_argnums=1)
        start = time.perf_counter()
        self.compiled = {}
        for prompt, n in tests:
            self.compile(prompt, n)
        self.compile_s = time.perf_counter() - start

    def cache(self, tokens):
        shape = (tokens, self.config.kv_heads, self.config.head_width)
        return [(self.jnp.zeros(shape), self.jnp.zeros(shape)) for _ in range(self.config.layers)]

    @functools.cached_property
    def zero(self):
        return self.jnp.int32(0)

    def compile(self, prompt, n):
        """The programs of a test, ahead of time: parts of a prompt and, where n > 0, generation."""
        cache = self.cache(prompt + n)
        for length in {prompt} if n == 0 else {min(prompt, CHUNK), prompt % CHUNK} - {0}:
            ids = self.jnp.zeros(length, "int32")
            self.compiled[length, prompt + n] = self.step.lower(self.weights, cache, ids, self.zero).compile()
        if n:
            self.compiled[prompt, n, "generate"] = self.generate.lower(self.weights, cache, self.zero, self.zero, n=n).compile()

    def feed(self, ids, context, chunk):
        cache = self.cache(context)
        for at in range(0, len(ids), chunk):
            part = self.jnp.asarray(ids[at : at + chunk], "int32")
            cache, token = self.compiled[len(part), context](self.weights, cache, part, self.jnp.int32(at))
        return cache, token.block_until_ready()

    def prefill(self, ids):
        start = time.perf_counter()
        self.feed(ids, len(ids), len(ids))
        return time.perf_counter() - start

    def decode(self, prompt, n):
        cache, token = self.feed(prompt, len(prompt) + n, CHUNK)
        program, position = self.compiled[len(prompt), n, "generate"], self.jnp.int32(len(prompt))
        start = time.perf_counter()
        _, ids = program(self.weights, cache, token, position)
        ids = ids.tolist()  # waits for them
        return time.perf_counter() - start, ids


engine.main(Jax)
