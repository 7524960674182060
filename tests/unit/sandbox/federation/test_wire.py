"""What is on the wire: a generator of a fixed form, and nothing else; whatever else comes is refused by name."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from chimera.core.errors import InputError, ReplyError
from chimera.sandbox.federation.flower import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from chimera.sandbox.federation.host import Host
from chimera.sandbox.federation.local import Floating
from chimera.sandbox.federation.wire import Blueprint, decode, encode
from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import hold, host_send, last, node, plan

shapes = arrays_of.array_shapes(max_dims=4, max_side=4)

generators = st.lists(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: arrays_of.arrays(dtype, shapes, elements={"allow_nan": False, "allow_infinity": False})
    ),
    min_size=1,
    max_size=4,
)


def asking(arrays: list[Floating], *, to: int = 1, steps: object = 5) -> Message:
    content = RecordDict({"arrays": Blueprint.of(arrays).pack(arrays), "config": ConfigRecord({"steps": steps})})  # type: ignore[dict-item]
    message = Message(content, to, "train")
    message.metadata.__dict__.update(_run_id=1, _message_id="asked")
    return message


@given(generators)
def test_a_message_comes_out_as_it_went_in(arrays: list[Floating]) -> None:
    message = asking(arrays)
    again = decode(encode(message))
    assert again.metadata == message.metadata
    assert again.content == message.content
    unpacked = Blueprint.of(arrays).unpack(again.content.array_records["arrays"])
    for came, went in zip(unpacked, arrays, strict=True):
        assert came.dtype == went.dtype and np.array_equal(came, went)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(packed: bytes) -> None:
    with contextlib.suppress(ReplyError):
        decode(packed)


@given(generators, st.data())
def test_an_array_with_a_changed_byte_is_another_array_or_refused(arrays: list[Floating], data: st.DataObject) -> None:
    blueprint = Blueprint.of(arrays)
    record = blueprint.pack(arrays)
    first = record["generator/0"]
    at = data.draw(st.integers(0, len(first.data) - 1))
    first.data = first.data[:at] + bytes([first.data[at] ^ data.draw(st.integers(1, 255))]) + first.data[at + 1 :]
    try:
        unpacked = blueprint.unpack(record)
    except ReplyError:
        return
    assert unpacked[0].shape == arrays[0].shape and not np.array_equal(
        unpacked[0].view(np.uint8), arrays[0].view(np.uint8)
    )


def test_a_large_message_is_neither_sent_nor_read() -> None:
    message = asking([np.zeros(1_000, np.float32)])
    packed = encode(message)
    with pytest.raises(InputError, match="larger than the 1000 that are sent"):
        encode(message, max_bytes=1_000)
    with pytest.raises(ReplyError, match="larger than the 1000 that are read"):
        decode(packed, max_bytes=1_000)


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.int64), np.float32(1.0).reshape(()), np.zeros((0, 2)), np.zeros(3, object)]
)
def test_what_cannot_be_averaged_is_not_shared(array: Floating) -> None:
    with pytest.raises(InputError, match="cannot be averaged"):
        Blueprint.of([array])


def test_a_record_holds_exactly_the_generators_arrays(tmp_path: Path) -> None:
    """Read off the wire: what leaves a sandbox is its generator, its count of records, its privacy and its losses."""
    reply = decode(Host(node(tmp_path, 1, "honest")).handle(encode(asking(tiny.blank()))))
    assert set(reply.content) == {"arrays", "metrics"}
    form = [(name, tuple(array.shape), array.dtype) for name, array in reply.content.array_records["arrays"].items()]
    assert form == [("generator/0", (3, 3), "float32"), ("generator/1", (3,), "float32")]
    assert dict(reply.content.metric_records["metrics"]).keys() == {
        "num-examples",
        "epsilon",
        "delta",
        "loss-generator",
    }


@pytest.mark.parametrize(
    ("enemy", "says"),
    [
        ("not_a_number", "not finite"),
        ("infinite", "not finite"),
        ("beyond", r"a number beyond 1e\+06"),
        ("wrong_shape", r"float32 of shape \(1, 3\) instead of"),
        ("wrong_type", "float64 of shape"),
        ("pickled", "serialised as 'cloudpickle'"),
        ("object_array", "not what numpy writes"),
        ("lying_header", "not what numpy writes"),
        ("more_arrays", "'generator/2' instead of the generator's 2"),
        ("data_beside", "holds 3 records"),
        ("greedy", "records: Input should be less than"),
        ("strange_metrics", "records: Input should be a valid integer"),
        ("negative_epsilon", "epsilon: Input should be greater"),
    ],
)
def test_a_reply_that_is_not_a_generator_is_refused_and_named(tmp_path: Path, enemy: str, says: str) -> None:
    federated = hold(tmp_path, ["honest", "honest", enemy], plan("fedavg", rounds=2))
    row = last(federated, 3)
    assert row.state == "refused"
    with pytest.raises(ReplyError, match=says):
        raise ReplyError(row.reason)
    assert federated.report.rounds[-1].aggregated and federated.report.stopped == ""
    assert not tiny.Boom.unpickled


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (pickle.dumps(tiny.Boom()), "it is no message of Flower's"),
        (b"\0" * 64_000_001, "larger than the 64000000 that are read"),
        ("text", "no bytes"),
    ],
)
def test_bytes_that_are_no_message_are_an_error_of_that_node(tmp_path: Path, packed: bytes, says: str) -> None:
    async def send(_: bytes) -> bytes:
        return packed

    federated = hold(tmp_path, ["honest"] * 3, plan("fedavg", rounds=1), instead=lambda i, _: send if i == 3 else None)
    row = last(federated, 3)
    assert row.state == "failed" and says in row.reason
    assert not tiny.Boom.unpickled


def test_a_node_cannot_answer_for_another(tmp_path: Path) -> None:
    """Whatever the reply says of itself, it is the reply of the node that was asked."""
    host = host_send(Host(node(tmp_path / "elsewhere", 3, "scaled")))

    async def send(packed: bytes) -> bytes:
        reply = decode(await host(packed))
        reply.metadata.__dict__["_src_node_id"] = 1
        return encode(reply)

    federated = hold(
        tmp_path, ["honest"] * 3, plan("fedmedian", rounds=1), instead=lambda i, _: send if i == 3 else None
    )
    assert sorted(row.node_id for row in federated.report.rounds[0].nodes) == [1, 2, 3]


def test_a_host_refuses_what_is_for_another(tmp_path: Path) -> None:
    with pytest.raises(ReplyError, match="a message for node 2 came to node 1"):
        Host(node(tmp_path, 1, "honest")).handle(encode(asking(tiny.blank(), to=2)))


@pytest.mark.parametrize("steps", [0, -1, 10**9, "many", 1.5])
def test_a_sandbox_trains_no_more_steps_than_is_reasonable(tmp_path: Path, steps: object) -> None:
    reply = decode(Host(node(tmp_path, 1, "honest")).handle(encode(asking(tiny.blank(), steps=steps))))
    assert "asks for 1 to 1000000 training steps" in str(reply.error.reason)


def test_a_failing_app_tells_nothing_of_the_data(tmp_path: Path) -> None:
    reply = decode(Host(node(tmp_path, 1, "broken")).handle(encode(asking(tiny.blank()))))
    assert reply.error.reason == "RuntimeError in the sandbox's app; its log says where"


def test_arrays_that_lost_their_form_are_not_taken_for_a_generator() -> None:
    blueprint = Blueprint.of(tiny.blank())
    with pytest.raises(ReplyError, match="it holds the arrays of nothing"):
        blueprint.unpack(ArrayRecord())
    swapped = ArrayRecord({"generator/1": Array(tiny.blank()[1]), "generator/0": Array(tiny.blank()[0])})
    with pytest.raises(ReplyError, match="instead of the generator's 2"):
        blueprint.unpack(swapped)
    with pytest.raises(InputError, match="changed their shapes"):
        blueprint.pack(tiny.blank()[:1])


def test_metric_records_are_not_arrays(tmp_path: Path) -> None:
    message = asking(tiny.blank())
    message.content["arrays"] = MetricRecord({"a": 1})
    reply = decode(Host(node(tmp_path, 1, "honest")).handle(encode(message)))
    assert "holds the records 'arrays' and 'config'" in str(reply.error.reason)
