"""OpenVINO GenAI's LLMPipeline over the GGUF file.

The pipeline's own GGUF reader knows no Gemma, and only OpenVINO's GGUF frontend does. That one gives a graph without state, with
the caller's masks and caches as inputs; adapt() makes of it what the pipeline takes: input_ids, attention_mask, position_ids and
beam_idx, the caches as variables. Each cache is read, gathered by beam, extended and assigned, which is the form that the CPU plugin
fuses. The pipeline also wants a tokenizer; it gets one that is never asked, since ids go in and ids come out.
"""

import importlib.metadata
import pathlib
import tempfile
import time

import numpy as np
import openvino as ov
import openvino.opset13 as op
import openvino_genai as genai
from openvino.frontend import FrontEndManager
from openvino.op.util import Variable, VariableInfo

import engine

AXIS0, AXIS1 = np.int64(0), np.int64(1)
BOS, EOS = 2, 1  # of every Gemma


def parameter(name, shape, dtype):
    node = op.parameter(shape, dtype, name=name)
    node.output(0).set_names({name})
    return node


def row(ids):
    """[1, T] of any integers -> i32 [1, 1, 1, T], the frontend's form of a list."""
    return op.unsqueeze(op.unsqueeze(op.convert(ids, "i32"), AXIS0), AXIS0)


def length(ids):
    """T of [1, T], as i32."""
    return op.gather(op.shape_of(ids, "i32"), np.int32(1), AXIS0)


def additive_mask(visible):
    return op.unsqueeze(op.unsqueeze(op.select(visible, np.float32(0), np.float32(-np.inf)), AXIS0), AXIS0)


def make_variable(name, cache, beams):
    """Replaces the write into an input cache [1, C, K, W] by a variable that grows; returns its assignment."""
    (write,) = {target.get_node() for target in cache.output(0).get_target_inputs()}
    if write.get_type_name() != "ScatterUpdate":
        raise SystemExit(f"the GGUF frontend writes caches by {write.get_type_name()}, not ScatterUpdate")
    heads, width = (cache.get_output_partial_shape(0)[axis].get_length() for axis in (2, 3))
    info = VariableInfo()
    info.data_shape = ov.PartialShape([-1, -1, heads, width])
    info.data_type = cache.get_element_type()
    info.variable_id = name
    variable = Variable(info)
    empty = op.constant(np.zeros((1, 0, heads, width), cache.get_element_type().to_dtype()))
    past = op.gather(op.read_value(empty, variable), beams, AXIS0)
    new = op.reshape(write.input_value(2), np.array([1, -1, heads, width], np.int64), False)
    grown = op.concat([past, new], 1)
    for target in list(write.output(0).get_target_inputs()):
        target.replace_source_output(grown.output(0))
    return op.assign(grown, variable)


def adapt(graph):
    inputs = {port.get_any_name(): port.get_node() for port in graph.inputs}
    ids, mask, positions = (parameter(name, [-1, -1], np.int64) for name in ("input_ids", "attention_mask", "position_ids"))
    beams = parameter("beam_idx", [-1], np.int32)
    query = op.unsqueeze(op.squeeze(op.convert(positions, "i32"), AXIS0), AXIS1)
    key = op.unsqueeze(op.range(np.int32(0), length(mask), np.int32(1), "i32"), AXIS0)
    causal = op.greater_equal(query, key)
    window = np.int32(graph.get_rt_info("gguf_swa_window_size").get())
    near = op.logical_and(causal, op.less(op.subtract(query, key), window))
    last = op.reshape(op.subtract(length(ids), np.int32(1)), np.array([1, 1, 1, 1], np.int64), False)
    given = {"inp_tokens": row(ids), "inp_pos": row(positions), "inp_out_ids": last,
             "self_kq_mask": additive_mask(causal), "self_kq_mask_swa": additive_mask(near)}
    for name, node in given.items():
        for target in list(inputs[name].output(0).get_target_inputs()):
            target.replace_source_output(node.output(0))
    sinks = [make_variable(name, node, beams) for name, node in inputs.items() if name.startswith("cache_")]
    logits = op.squeeze(graph.outputs[0].get_node().input_value(0), AXIS0)
    logits.output(0).set_names({"logits"})
    return ov.Model([op.result(logits)], sinks, [ids, mask, positions, beams], "gemma")


def unused_tokenizer():
    text = parameter("string_input", [-1], ov.Type.string)
    results = []
    for name in ("input_ids", "attention_mask"):
        constant = op.constant(np.ones((1, 1), np.int64))
        constant.output(0).set_names({name})
        results.append(op.result(constant))
    model = ov.Model(results, [text], "tokenizer")
    for name, token in (("bos_token_id", BOS), ("eos_token_id", EOS), ("pad_token_id", 0)):
        model.set_rt_info(token, name)
    return model


class OpenVino:
    """OpenVINO GenAI's LLMPipeline."""

    note = "graph of OpenVINO's GGUF frontend (preview), made stateful here; weights requantised by it, activations int8 where it chooses"

    def __init__(self, model, threads, tests):
        start = time.perf_counter()
        frontend = FrontEndManager().load_by_framework("gguf")
        graph = adapt(frontend.convert(frontend.load(model)))
        self.vocab, self.bos = graph.outputs[0].get_partial_shape()[-1].get_length(), BOS
        with tempfile.TemporaryDirectory() as folder:
            ov.save_model(graph, pathlib.Path(folder, "openvino_model.xml"), compress_to_fp16=False)
            ov.save_model(unused_tokenizer(), pathlib.Path(folder, "openvino_tokenizer.xml"))
            self.load_s = time.perf_counter() - start
            start = time.perf_counter()
            self.pipeline = genai.LLMPipeline(folder, genai.Tokenizer(folder), "CPU", ATTENTION_BACKEND="SDPA",
                                              INFERENCE_NUM_THREADS=threads)
        self.compile_s = time.perf_counter() - start
        self.version = f"openvino-genai {importlib.metadata.version('openvino-genai')}"

    def generate(self, ids, n):
        config = genai.GenerationConfig(max_new_tokens=n, ignore_eos=True, do_sample=False, eos_token_id=EOS, stop_token_ids={EOS})
        result = self.pipeline.generate(ov.Tensor(np.array([ids], np.int64)), config)
        if len(result.tokens[0]) != n:
            raise SystemExit(f"OpenVINO GenAI generated {len(result.tokens[0])} tokens instead of {n}")
        return result.tokens[0], result.perf_metrics

    def prefill(self, ids):
        start = time.perf_counter()
        self.generate(ids, 1)
        return time.perf_counter() - start

    def decode(self, prompt, n):
        ids, metrics = self.generate(prompt, n + 1)  # the first comes with the prompt
        return metrics.get_tpot().mean / 1000 * n, ids[:n]


engine.main(OpenVino)
