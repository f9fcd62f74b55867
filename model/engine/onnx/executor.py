"""The executor for ONNX Runtime, on a CPU. Embeddings and searches run on torch."""

# B rows, n beams, T target length, V vocabulary

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.decoding.logits import RoundedLogits
from model.engine.collate import collate
from model.engine.onnx.domains import DomainInputBank, Inputs
from model.engine.onnx.models import Precision, ProjectionWriter, encoder_model, step_model
from model.engine.onnx.row_stepper import OnnxRowStepper, ReadPrompts
from model.engine.onnx.session import Session, to_tensor, to_value
from model.engine.plans import Plan
from model.engine.protocol import Placement
from model.errors import EngineError
from model.network.network import PAD_ID, Vip5Network
from model.network.slots import fits, place_domain, with_layout
from model.network.stacks import Memory
from quiet_libraries.onnx_runtime import onnxruntime


@dataclass(frozen=True)
class _Loaded:
    """The network and the sessions for one version of the banks."""

    network: Vip5Network
    encoder: Session
    step: Session
    domains: DomainInputBank


class OnnxExecutor:
    """Runs the network as two ONNX models whose inputs include the weights of domains."""

    def __init__(
        self,
        network: Vip5Network,
        device: torch.device,
        *,
        precision: Precision = "float32",
        num_threads: int | None = None,
    ) -> None:
        """Raises EngineError for another device than a CPU. Default of `num_threads`: as many as torch."""
        if device.type != "cpu":
            raise EngineError(
                f"ONNX Runtime computes on a CPU here, not on {device}; choose a CPU, or auto, torch or one of graphs-*"
            )
        self._device = device
        self._precision = precision
        self._num_threads = torch.get_num_threads() if num_threads is None else num_threads
        self._loaded = self._load(network)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def num_slots(self) -> int:
        return len(self._loaded.network.layouts)

    @property
    def is_exact(self) -> bool:
        return self._precision == "float32"

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Limits torch to one thread: idle torch threads keep spinning on the cores that ONNX Runtime needs."""
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(num_threads)

    def encode(self, plans: Sequence[Plan]) -> OnnxBatch:
        return self._encode(self._loaded, plans)

    def row_stepper(self) -> OnnxRowStepper:
        return OnnxRowStepper(self._read, self._loaded.network)

    def _read(self, plans: Sequence[Plan]) -> ReadPrompts:
        loaded = self._loaded
        inputs = self._encode(loaded, plans).inputs
        layers = range(loaded.network.config.num_decoder_layers)
        keys, values = (tuple(to_tensor(inputs[f"{kind}.{layer}"]) for layer in layers) for kind in ("key", "value"))
        return ReadPrompts(loaded.network, loaded.step, loaded.domains, Memory(keys, values, mask=None))

    def _encode(self, loaded: _Loaded, plans: Sequence[Plan]) -> OnnxBatch:
        inputs = collate(plans, loaded.network, self.device)
        x = loaded.network.embed(inputs)
        bias = loaded.network.encoder.positions(x.shape[1])
        is_token = to_value((inputs.input_ids != PAD_ID).int())
        domains = loaded.domains.of(inputs.rows)
        memory = loaded.encoder.run({"x": to_value(x), "bias": to_value(bias), "is_token": is_token, **domains.encoder})
        return OnnxBatch(loaded.network, loaded.step, {**domains.step, **memory, "is_token": is_token}, x.shape[0])

    def place(self, slot: int, placement: Placement) -> None:
        loaded = self._loaded
        is_wider = not fits(loaded.network, slot, placement.layout)
        network = with_layout(loaded.network, slot, placement.layout) if is_wider else loaded.network
        place_domain(network, slot, placement.layout, placement.weights)
        if _structure(network) != _structure(loaded.network):
            self._loaded = self._load(network)
        elif is_wider:
            self._loaded = _Loaded(network, loaded.encoder, loaded.step, DomainInputBank(network))
        else:
            loaded.domains.invalidate(slot)

    def _load(self, network: Vip5Network) -> _Loaded:
        return _Loaded(
            network,
            self._session("encoder", encoder_model(network, self._precision)),
            self._session("step", step_model(network, self._precision)),
            DomainInputBank(network),
        )

    def _session(self, name: str, writer: ProjectionWriter) -> Session:
        session = Session(name, writer, self._num_threads)
        writer.share_weights()  # otherwise the backbone would be in memory twice
        return session


def _structure(network: Vip5Network) -> tuple[bool, bool]:
    """The properties that the models' nodes depend on, besides the backbone."""
    return network.capacity.bottleneck > 0, network.capacity.cross_attention_adapter


@dataclass(frozen=True)
class OnnxBatch:
    """An EncodedBatch of ONNX Runtime."""

    network: Vip5Network
    session: Session
    inputs: Inputs  # the same in every step: the domains' weights and the encoder's outputs
    num_rows: int

    def stepper(self, *, num_beams: int, max_length: int) -> OnnxStepper:  # noqa: ARG002  # caches grow with each step
        return OnnxStepper(self, max_length)

    def item_stepper(self, *, num_beams: int, max_length: int) -> OnnxStepper | RoundedStepper:
        stepper = self.stepper(num_beams=num_beams, max_length=max_length)
        return RoundedStepper(stepper) if self.session.is_rounded else stepper


class OnnxStepper:
    """The decode loop of one encoded batch; keeps the current position."""

    def __init__(self, batch: OnnxBatch, max_length: int) -> None:
        self._batch = batch
        self._biases = batch.network.step_biases(max_length)
        self._caches = self._empty_caches()
        self._length = 0
        self._num_beams = 1  # of the last step

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Tokens [B, n] of beams that continue beams parents [B, n] of the last step → logits [B, n, V]."""
        return to_tensor(self.run(tokens, parents)["logits"])

    def run(self, tokens: Tensor, parents: Tensor | None) -> dict[str, onnxruntime.OrtValue]:
        """The step's outputs besides the caches."""
        batch = self._batch
        first = torch.arange(batch.num_rows, device=tokens.device).unsqueeze(1) * self._num_beams
        origin = first if parents is None else first + parents
        x = functional.embedding(tokens, batch.network.shared)
        outputs = batch.session.run(
            {
                **batch.inputs,
                **self._caches,
                "x": to_value(x),
                "bias": to_value(self._biases[self._length]),
                "origin": to_value(origin.flatten()),
            }
        )
        self._caches = {name.replace("new_", "past_"): outputs.pop(name) for name in self._caches_of(outputs)}
        self._length += 1
        self._num_beams = tokens.shape[1]
        return outputs

    @property
    def head(self) -> Tensor:
        """The head's weight [V, D]."""
        return self._batch.network.head.weight

    def _caches_of(self, outputs: Iterable[str]) -> list[str]:
        return [name for name in outputs if name.startswith("new_")]

    def _empty_caches(self) -> dict[str, onnxruntime.OrtValue]:
        config = self._batch.network.config
        nothing = torch.zeros(
            self._batch.num_rows, config.num_heads, 0, config.d_kv, device=self._batch.network.shared.device
        )
        names = [f"past_{kind}.{layer}" for kind in ("key", "value") for layer in range(config.num_decoder_layers)]
        return {name: to_value(nothing) for name in names}


class RoundedStepper:
    """The decode loop of a search for items over a model whose logits are rounded."""

    def __init__(self, stepper: OnnxStepper) -> None:
        self._stepper = stepper

    def step(self, tokens: Tensor, parents: Tensor | None) -> RoundedLogits:
        """As OnnxStepper.step."""
        outputs = self._stepper.run(tokens, parents)
        return RoundedLogits(to_tensor(outputs["logits"]), to_tensor(outputs["states"]), self._stepper.head)
