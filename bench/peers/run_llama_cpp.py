"""llama.cpp through the C interface that llama-cpp-python exposes. Memory-mapped weights, the library's own defaults otherwise."""

import importlib.metadata
import time

import llama_cpp as ll

import engine


class LlamaCpp:
    """llama.cpp by llama-cpp-python."""

    note = ""

    def __init__(self, model, threads, tests):
        start = time.perf_counter()
        ll.llama_backend_init()
        # Only the number of errors matters, not the log; ctypes must keep the callback alive.
        self.quiet = ll.llama_log_callback(lambda level, text, user: None)
        ll.llama_log_set(self.quiet, None)
        self.model = ll.llama_model_load_from_file(model.encode(), ll.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        self.load_s = time.perf_counter() - start
        self.compile_s = None
        params = ll.llama_context_default_params()
        params.n_ctx = max(prompt + generated for prompt, generated in tests) + 1
        params.n_threads = params.n_threads_batch = threads
        self.batch = params.n_batch
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {params.n_ctx} tokens")
        vocab = ll.llama_model_get_vocab(self.model)
        self.vocab, self.bos = ll.llama_vocab_n_tokens(vocab), ll.llama_vocab_bos(vocab)
        self.sampler = ll.llama_sampler_init_greedy()
        features = ll.llama_print_system_info().decode()
        self.version = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}, {' '.join(features.split())}"

    def feed(self, ids):
        for at in range(0, len(ids), self.batch):
            part = ids[at : at + self.batch]
            tokens = (ll.llama_token * len(part))(*part)
            if ll.llama_decode(self.context, ll.llama_batch_get_one(tokens, len(part))):
                raise SystemExit("llama_decode failed")

    def prefill(self, ids):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self.feed(ids)
        ll.llama_synchronize(self.context)
        return time.perf_counter() - start

    def decode(self, prompt, n):
        self.prefill(prompt)
        ids = []
        start = time.perf_counter()
        for _ in range(n):
            ids.append(ll.llama_sampler_sample(self.sampler, self.context, -1))
            self.feed(ids[-1:])
        ll.llama_synchronize(self.context)
        return time.perf_counter() - start, ids


engine.main(LlamaCpp)
