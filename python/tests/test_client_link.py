"""How a request travels, decided without a server: one that is played here opens the memory that it is told of."""

from __future__ import annotations

import copy
import gc
import json
import mmap
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

import umo.client.http as http
from umo.client import empty
from umo.client import link as links
from umo.client import segment as segments
from umo.client import shared as shared_clients
from umo.client.budget import Budget
from umo.client.link import Control, Link, is_local
from umo.client.ring import lease_of
from umo.client.segment import Owner

pytestmark = pytest.mark.skipif(segments.SYSTEM.folder is None, reason="what is played here opens /dev/shm")

FLOATS = 32 << 10  # 128 KiB: large enough for a lane
ROUGH = 4 << 20


class Played:
    """A server: its regions, and a model that returns its inputs, `grow` elements longer or shorter."""

    def __init__(self) -> None:
        self.regions: dict[str, mmap.mmap] = {}
        self.allows = True
        self.in_use = False
        self.grow = 0
        self.error: BaseException | None = None
        self.output = "OUT"
        self.said: list[str] = []
        self.last: dict[str, Any] = {}

    def control(self, control: Control) -> Any:
        self.said.append(control.method.split("_")[0])
        return getattr(self, control.method)(*control.arguments)

    def get_system_shared_memory_status(self) -> Any:
        if not self.allows:
            raise InferenceServerException("shared memory is off", "400")
        return [{"name": name} for name in self.regions]

    def register_system_shared_memory(self, name: str, key: str, size: int) -> None:
        if not os.path.exists("/dev/shm" + key):
            raise InferenceServerException(f"Unable to open shared memory region: '{key}'", "400")
        with open("/dev/shm" + key, "r+b") as file:
            self.regions[name] = mmap.mmap(file.fileno(), size)

    def unregister_system_shared_memory(self, name: str) -> None:
        if self.in_use:
            raise InferenceServerException("it is currently in use", "400")
        self.regions.pop(name, None)

    def get_model_config(self, name: str, version: str) -> Any:
        return {"output": [{"name": "OUT", "dims": ["8", "4"] if name == "fixed" else ["-1"]}]}

    def infer(self, inputs: Any, outputs: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        tensor = inputs[0]._get_tensor()
        where = tensor["parameters"]
        self.last = {"in": "shared_memory_region" in where}
        data = inputs[0]._get_binary_data()
        if self.last["in"]:
            data = self._bytes(where)[:]
        answer = np.resize(np.frombuffer(data, "f4"), max(len(data) // 4 + self.grow, 0))
        if outputs and outputs[0].name() != self.output:
            raise InferenceServerException(f"unexpected inference output '{outputs[0].name()}' for model", "400")
        place = outputs[0]._get_tensor()["parameters"] if outputs else {}
        self.last["out"] = "shared_memory_region" in place
        if "classification" in place:
            best = {"name": self.output, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
            return {"outputs": [best], "raw": b"\1\0\0\0x"}
        row = {"name": self.output, "datatype": "FP32", "shape": [len(answer)]}
        if not self.last["out"]:
            return {"outputs": [{**row, "parameters": {"binary_data_size": answer.nbytes}}], "raw": answer.tobytes()}
        room = self._bytes(place)
        if len(room) < answer.nbytes:
            raise InferenceServerException("shared memory size specified with the request for output 'OUT'", "400")
        room[: answer.nbytes] = answer.tobytes()
        return {"outputs": [row]}

    def _bytes(self, where: dict[str, Any]) -> memoryview:
        name = where["shared_memory_region"]
        if name not in self.regions:
            raise InferenceServerException(f"Unable to find shared memory region: '{name}'", "400")
        offset = where.get("shared_memory_offset", 0)
        return memoryview(self.regions[name])[offset : offset + where["shared_memory_byte_size"]]


class Client(shared_clients.Shared):
    """A client of the played server, with the HTTP client's objects."""

    _umo_wire = http.WIRE

    def __init__(self, server: Played, url: str = "localhost:1") -> None:
        self.server = server
        self._umo_link = links.link_for("played", url)

    def _umo_method(self, control: Control) -> Any:
        return lambda **_: self.server.control(control)

    def infer(
        self, inputs: list[Any], outputs: Any = None, model: str = "m", sequence: bool = False
    ) -> http.InferResult:
        steps = self._umo_link.prepare(http.WIRE, model, "", inputs, outputs, sequence)
        attempt = self._umo_drive(steps)

        def send(its_inputs: Any, its_outputs: Any) -> Any:
            said = self.server.infer(its_inputs, its_outputs)
            raw = said.pop("raw", b"")
            head = json.dumps(said).encode()
            return http.base.InferResult.from_response_body(head + raw, False, len(head), None)

        return shared_clients.sends(self, attempt, inputs, outputs, send, http.wrap)


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """What was made before these tests need not be looked through after each of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(links, "_links", {})
    monkeypatch.setattr(links, "_budget", Budget(ROUGH))
    monkeypatch.setattr(links, "_recent", None)
    links._hints.clear()
    yield
    kept = {ring.segment.key for link in links._links.values() for ring in link._rings.values() if not ring.registered}
    links._links.clear()
    links._budget = None
    gc.collect()
    shown = {"/" + path.name for path in Path("/dev/shm").glob(f"umo.{os.getpid()}.*")}
    assert shown <= kept, "a segment that was registered is still to be seen"


@pytest.fixture
def server() -> Played:
    return Played()


@pytest.fixture
def client(server: Played) -> Client:
    return Client(server)


def tensor(value: float, floats: int = FLOATS) -> Any:
    data = np.full(floats, value, "f4")
    return http.InferInput("IN", [floats], "FP32").set_data_from_numpy(data)


def ask(client: Client, value: float, floats: int = FLOATS, **more: Any) -> np.ndarray:
    answer = client.infer([tensor(value, floats)], **more).as_numpy("OUT")
    assert (answer == value).all()
    return answer


def warm(client: Client, floats: int = FLOATS, **more: Any) -> Link:
    for value in range(3):
        ask(client, value, floats, **more)
    return client._umo_link


def test_the_second_request_of_a_kind_is_in_lanes(client: Client, server: Played) -> None:
    assert not client.transport.shared_memory and "not tried" in str(client.transport)
    ask(client, 1)
    assert server.last == {"in": False, "out": False} and server.said == []
    ask(client, 2)
    assert server.last == {"in": True, "out": True} and server.said == ["get", "register"]
    assert client.transport.shared_memory
    ask(client, 3)
    assert server.said == ["get", "register"], "a warm request asks nothing"


def test_small_requests_travel_as_before(client: Client, server: Played) -> None:
    warm(client, 100)
    assert server.last == {"in": False, "out": False} and server.said == []


def test_a_warm_input_is_copied_once_and_its_output_lies_beside_those_of_others(client: Client, server: Played) -> None:
    warm(client)
    inputs = [tensor(value) for value in range(3)]
    leases = [one._umo_lease for one in inputs]
    assert [lease.slot.index for lease in leases] == [0, 1, 2]
    assert leases[1].offset == leases[0].offset + leases[0].size
    results = [client.infer([one]) for one in inputs]
    places = [result._umo_places["OUT"] for result in results]
    assert [place.slot for place in places] == [lease.slot for lease in leases]


def test_an_input_is_a_snapshot(client: Client) -> None:
    warm(client)
    data = np.ones(FLOATS, "f4")
    one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(data)
    data[:] = 2
    assert (client.infer([one]).as_numpy("OUT") == 1).all()
    assert (client.infer([one]).as_numpy("OUT") == 1).all(), "an input may be sent twice"


def test_results_keep_their_bytes_while_they_are_held(client: Client, server: Played) -> None:
    warm(client)
    held = [ask(client, value) for value in range(20)]
    views = [array[7:9] for array in held]
    del held
    for value in range(30, 60):
        ask(client, value)
    assert [view.tolist() for view in views] == [[value, value] for value in range(20)]


def test_a_slot_comes_back_when_the_last_view_is_gone(client: Client) -> None:
    warm(client)
    for value in range(200):
        ask(client, value)
    one = tensor(1)
    assert one._umo_lease.slot.index == 0
    assert links.budget().used == 2 * FLOATS * 4 * links.budget().used // (2 * FLOATS * 4)
    assert links.budget().used <= 3 * 2 * FLOATS * 4, "more slots were taken than were in use at once"


def test_outputs_are_read_only_as_the_original(client: Client) -> None:
    warm(client)
    array = ask(client, 1)
    assert lease_of(array) is not None and not array.flags.writeable


def test_an_empty_array_is_not_copied(client: Client, server: Played) -> None:
    for again in range(2):
        array = empty(client, "IN", [FLOATS], np.float32)
        array[:] = 5 + again
        one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(array)
        assert one._umo_lease.slot is lease_of(array).slot
        assert (client.infer([one]).as_numpy("OUT") == 5 + again).all() and server.last["in"]
        array[:] = 9
        assert (client.infer([one]).as_numpy("OUT") == 9).all(), "it is the same memory"
        half = http.InferInput("IN", [FLOATS // 2], "FP32").set_data_from_numpy(array[FLOATS // 2 :])
        assert half._umo_lease.offset == one._umo_lease.offset + 2 * FLOATS
        warm(client)


def test_an_empty_array_of_objects_or_nothing(client: Client) -> None:
    with pytest.raises(TypeError):
        empty(client, "IN", [3], object)
    assert empty(client, "IN", [0, 3], "f4").shape == (0, 3)
    client._umo_link.turn_off("for a test")
    assert lease_of(empty(client, "IN", [FLOATS], "f4")) is None


def test_a_mistake_leaves_what_lies_in_a_lane(client: Client, server: Played) -> None:
    warm(client)
    one = tensor(3)
    assert one._umo_lease is not None
    for bad in (np.zeros(FLOATS, "f8"), np.zeros(FLOATS + 1, "f4"), None):
        with pytest.raises(InferenceServerException):
            one.set_data_from_numpy(bad)
        assert (client.infer([one]).as_numpy("OUT") == 3).all() and server.last["in"]


def test_a_strided_part_of_an_empty_array_is_copied(client: Client) -> None:
    array = empty(client, "IN", [FLOATS, 2], np.float32)
    array[:, 0], array[:, 1] = 1, 2
    one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(array[:, 1])
    array[:] = 0
    assert (client.infer([one]).as_numpy("OUT") == 2).all()


def test_a_result_is_the_next_input_without_a_copy(client: Client, server: Played) -> None:
    warm(client)
    array = ask(client, 4)
    one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(array)
    assert one._umo_lease.offset == lease_of(array).offset
    del array
    for value in range(10):
        ask(client, value)
    assert (client.infer([one]).as_numpy("OUT") == 4).all()


def test_what_gives_a_dlpack_is_an_input(client: Client) -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **how: Any) -> Any:
            return self.array.__dlpack__(**how)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    for _ in range(3):
        foreign = Foreign(np.full(FLOATS, 6, "f4"))
        one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(foreign)
        assert (client.infer([one]).as_numpy("OUT") == 6).all()
    assert one._umo_lease is not None


def test_a_users_own_region_is_left_alone(client: Client, server: Played) -> None:
    warm(client)
    array = ask(client, 3)
    lease = lease_of(array)
    one = tensor(1)
    one.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
    output = http.InferRequestedOutput("OUT")
    output.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
    before = json.dumps(output._get_tensor())
    result = client.infer([one], [output])
    assert result.get_output("OUT") == {"name": "OUT", "datatype": "FP32", "shape": [FLOATS]}
    assert json.dumps(output._get_tensor()) == before


def test_outputs_that_must_not_lie_in_a_lane_do_not(client: Client, server: Played) -> None:
    warm(client)
    for output in (
        http.InferRequestedOutput("OUT", binary_data=False),
        http.InferRequestedOutput("OUT", class_count=3),
    ):
        client.infer([tensor(1)], [output])
        assert server.last == {"in": True, "out": False}
    ask(client, 2, outputs=[http.InferRequestedOutput("OUT")])
    assert server.last == {"in": True, "out": True}


def test_an_output_that_outgrows_its_lane_is_asked_for_again(client: Client, server: Played) -> None:
    warm(client)
    server.grow = 5
    assert client.infer([tensor(2)]).as_numpy("OUT").tolist() == [2] * (FLOATS + 5)
    for grow in (5, 0, 100, -3):
        server.grow = grow
        assert client.infer([tensor(2)]).as_numpy("OUT").tolist() == [2] * (FLOATS + grow)
        assert server.last["out"] is False, "its size is not the input's to tell"


def test_an_output_that_shrinks_has_its_own_size(client: Client, server: Played) -> None:
    warm(client)
    for grow in (-5, -FLOATS):
        server.grow = grow
        assert client.infer([tensor(2)]).as_numpy("OUT").shape == (FLOATS + grow,)
    assert server.last["out"] is False, "its size is not the input's to tell"


def test_a_step_of_a_sequence_is_not_made_twice(client: Client, server: Played) -> None:
    warm(client, model="loose", sequence=True)
    assert server.last == {"in": True, "out": False}, "its output may have any size"
    warm(client, model="fixed", sequence=True)
    assert server.last == {"in": True, "out": True}
    server.grow = 1
    with pytest.raises(InferenceServerException):
        client.infer([tensor(1)], model="fixed", sequence=True)


def test_a_server_that_knows_the_regions_no_more_gets_them_again(client: Client, server: Played) -> None:
    warm(client)
    array = empty(client, "IN", [FLOATS], "f4")
    array[:] = 8
    mine = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(array)
    waiting = tensor(7)
    server.regions.clear()
    assert (client.infer([waiting]).as_numpy("OUT") == 7).all()
    assert (client.infer([mine]).as_numpy("OUT") == 8).all()
    server.said.clear()
    ask(client, 9)
    ask(client, 9)
    assert server.last == {"in": True, "out": True}
    assert (client.infer([mine]).as_numpy("OUT") == 8).all()
    assert (client.infer([waiting]).as_numpy("OUT") == 7).all()


def test_an_unknown_region_of_somebody_else_is_the_callers_error(client: Client, server: Played) -> None:
    warm(client)
    one = tensor(1)
    one.set_shared_memory("theirs", FLOATS * 4)
    with pytest.raises(InferenceServerException, match="theirs"):
        client.infer([one])
    ask(client, 2)
    assert server.last == {"in": True, "out": True}


@pytest.mark.parametrize("error", [TimeoutError("no answer"), KeyboardInterrupt(), ConnectionResetError()])
def test_a_slot_that_the_server_may_still_write_to_is_not_used_again(
    client: Client, server: Played, error: BaseException
) -> None:
    link = warm(client)
    ring = tensor(0)._umo_lease.slot.ring
    server.error = error
    with pytest.raises(type(error)):
        client.infer([tensor(1)])
    server.error = None
    assert ring.suspects == 1
    held = [ask(client, value) for value in range(3)]
    assert all(lease_of(array).slot.index != 0 for array in held if lease_of(array).slot.ring is ring)
    assert not link.off


def test_an_answer_that_is_an_error_gives_the_slot_back(client: Client, server: Played) -> None:
    warm(client)
    ring = tensor(0)._umo_lease.slot.ring
    server.error = InferenceServerException("the model failed", "500")
    with pytest.raises(InferenceServerException, match="failed"):
        client.infer([tensor(1)])
    gc.collect()
    assert ring.suspects == 0


def test_a_ring_that_lost_half_of_its_slots_is_left_and_unregistered_when_the_server_is_done(
    client: Client, server: Played
) -> None:
    warm(client)
    ring = tensor(0)._umo_lease.slot.ring
    server.error = TimeoutError()
    for _ in range(ring.slots // 2):
        with pytest.raises(TimeoutError):
            client.infer([tensor(1)])
    server.error = None
    server.in_use = True
    running = memoryview(server.regions[ring.name])[ring.lane("m", "<IN").slot_offset(0) :][: FLOATS * 4]
    for value in range(5):
        ask(client, value)
    assert ring.name in server.regions and len(server.regions) == 2
    assert server.last == {"in": True, "out": True}, "in the next ring"
    server.in_use = False
    ring.retry_at = 0
    gc.collect()
    ask(client, 1)
    assert ring.name not in server.regions and len(server.regions) == 1
    assert (np.frombuffer(running, "f4") == 1).all(), "a request that still runs has its inputs"


def test_what_a_server_refuses_is_not_asked_again(client: Client, server: Played) -> None:
    server.allows = False
    warm(client)
    assert server.said == ["get"] and server.last == {"in": False, "out": False}
    assert not client.transport.shared_memory and "shared memory is off" in client.transport.reason


def test_a_server_with_another_dev_shm_is_not_shared_with(
    client: Client, server: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, key: str, size: int) -> None:
        raise InferenceServerException(f"Unable to open shared memory region: '{key}'", "400")

    monkeypatch.setattr(server, "register_system_shared_memory", refuse)
    array = empty(client, "IN", [FLOATS], "f4")
    array[:] = 3
    one = http.InferInput("IN", [FLOATS], "FP32").set_data_from_numpy(array)
    assert (client.infer([one]).as_numpy("OUT") == 3).all()
    warm(client)
    assert server.last == {"in": False, "out": False}
    assert "did not open" in client.transport.reason
    assert (client.infer([one]).as_numpy("OUT") == 3).all()


def test_a_connection_that_breaks_is_no_refusal(
    client: Client, server: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> None:
        raise ConnectionResetError

    monkeypatch.setattr(server, "get_system_shared_memory_status", breaks)
    warm(client)
    assert "not tried" in client.transport.reason
    monkeypatch.undo()
    client._umo_link._retry_at = 0
    ask(client, 1)
    assert client.transport.shared_memory


@pytest.mark.parametrize("known", [True, False])
def test_a_registration_that_is_cut_short_is_no_refusal(
    client: Client, server: Played, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    def cut(name: str, key: str, size: int) -> None:
        if known:
            Played.register_system_shared_memory(server, name, key, size)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "register_system_shared_memory", cut)
    ask(client, 1)
    with pytest.raises(KeyboardInterrupt):
        ask(client, 2)
    half = set(server.regions)
    assert len(half) == known
    monkeypatch.undo()
    warm(client)
    assert not half & set(server.regions), "what the server may know is unregistered"
    for kind in client._umo_link._kinds.values():
        kind.retry_at = 0
    ask(client, 3)
    assert client.transport.shared_memory and server.last == {"in": True, "out": True}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_an_input_or_a_result_is_a_snapshot(client: Client, server: Played, copied: Any) -> None:
    warm(client)
    one = tensor(5)
    assert one._umo_lease is not None
    other = copied(one)
    result = client.infer([one])
    held = copied(result)
    one.set_data_from_numpy(np.full(FLOATS, 6, "f4"))
    del result
    ask(client, 7)
    assert (held.as_numpy("OUT") == 5).all() and not held.as_numpy("OUT").flags.writeable
    assert (client.infer([other]).as_numpy("OUT") == 5).all()
    assert other._get_binary_data() == np.full(FLOATS, 5, "f4").tobytes()


def test_two_addresses_of_one_server_share_its_rings(client: Client, server: Played) -> None:
    warm(client)
    other = Client(server, "127.0.0.1:2")
    warm(other)
    assert other._umo_link.real() is client._umo_link
    ask(other, 3)
    assert len(server.regions) == 1 and server.last == {"in": True, "out": True}
    third = Client(Played(), "127.0.0.1:3")
    warm(third)
    assert third._umo_link.real() is not client._umo_link


def test_data_placed_for_one_server_is_right_at_another(client: Client, server: Played) -> None:
    warm(client)
    other = Client(Played(), "127.0.0.1:2")
    one = tensor(5)
    for _ in range(4):
        assert (other.infer([one]).as_numpy("OUT") == 5).all()
    assert other.server.last == {"in": True, "out": True}
    assert (client.infer([one]).as_numpy("OUT") == 5).all()


def test_many_shapes_stay_within_the_budget(client: Client, server: Played) -> None:
    for turn in range(3):
        for floats in range(FLOATS, FLOATS + 30):
            ask(client, turn, floats)
            assert links.budget().used <= ROUGH
    assert len(server.regions) <= 70


def test_what_passes_the_budget_travels(client: Client, server: Played) -> None:
    warm(client, ROUGH // 4)
    assert server.last["out"] is False
    held = []
    warm(client)
    for value in range(40):
        held.append(ask(client, value))
    assert links.budget().used <= ROUGH
    assert [array[0] for array in held] == list(range(40))
    assert lease_of(held[0]) is not None and lease_of(held[-1]) is None


def test_a_large_tensor_of_a_new_shape_has_a_place_at_once(client: Client, server: Played) -> None:
    warm(client)
    ask(client, 1, 100_000)
    assert server.last == {"in": True, "out": False}
    ask(client, 1, 100_100)
    assert server.last == {"in": True, "out": False}
    names = set(server.regions)
    ask(client, 1, 100_200)
    assert set(server.regions) == names, "shapes of nearly one size share a lane"


def test_a_model_that_was_loaded_again_is_learned_again(client: Client, server: Played) -> None:
    link = warm(client)
    server.grow = 7
    link.forget_model("m")
    for expected in (False, True):
        assert client.infer([tensor(1)]).as_numpy("OUT").shape == (FLOATS + 7,)
        assert server.last["out"] is expected


def test_a_version_with_other_outputs_is_answered_as_before(client: Client, server: Played) -> None:
    warm(client)
    server.output = "NEW"
    for expected in (False, True, True):
        assert (client.infer([tensor(1)]).as_numpy("NEW") == 1).all()
        assert server.last["out"] is expected
    with pytest.raises(InferenceServerException, match="unexpected"):
        client.infer([tensor(1)], [http.InferRequestedOutput("OUT")])


def test_the_last_client_unregisters_all(client: Client, server: Played) -> None:
    warm(client)
    array = ask(client, 3)
    client._umo_drive(client._umo_link.shut())
    assert server.regions == {}
    assert (array == 3).all()
    warm(client)
    assert server.last == {"in": True, "out": True}


def test_the_last_client_gives_its_memory_back(client: Client, server: Played) -> None:
    warm(client)
    array = ask(client, 3)
    warm(client, FLOATS + 1)
    both = links.budget().used
    client._umo_drive(client._umo_link.shut())
    assert 0 < links.budget().used < both and (array == 3).all(), "somebody holds one of them"
    del array
    warm(client, 100)
    assert links.budget().used == 0 and server.regions == {}


def test_memory_of_a_server_that_opens_none_any_more_comes_back(client: Client, server: Played) -> None:
    link = warm(client)
    array = ask(client, 3)
    assert links.budget().used > 0
    link.turn_off("for a test")
    ask(client, 4)
    assert links.budget().used > 0 and (array == 3).all()
    del array
    ask(client, 4)
    assert links.budget().used == 0 and server.regions == {}
    assert server.last == {"in": False, "out": False}


def test_memory_that_a_server_refuses_comes_back(client: Client, server: Played) -> None:
    server.register_system_shared_memory = lambda *_: (_ for _ in ()).throw(  # type: ignore[method-assign]
        InferenceServerException("shared memory is off", "400")
    )
    warm(client)
    assert client._umo_link.off and server.last == {"in": False, "out": False}
    assert links.budget().used == 0


def test_a_client_unregisters_what_dead_ones_left(client: Client, server: Played) -> None:
    living = segments._ourselves(os.getpid()) + "-0123456789abcdef"
    dead = f"umo-{2**22 + 1}-1-{segments.SYSTEM.namespace()}-0123456789abcdef"
    assert Owner.of(dead).is_dead()  # type: ignore[union-attr]
    for name in (living, dead, "theirs"):
        server.regions[name] = mmap.mmap(-1, 4096)
    warm(client)
    assert {living, "theirs"} <= set(server.regions) and dead not in server.regions


def test_threads_get_their_own_answers(client: Client, server: Played) -> None:
    warm(client)
    wrong: list[Any] = []

    def work(number: int) -> None:
        last = None
        for turn in range(60):
            value = number * 1000 + turn
            array = client.infer([tensor(value)]).as_numpy("OUT")
            if not (array == value).all() or (last is not None and not (last == value - 1).all()):
                wrong.append(value)
            last = array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_input_may_be_in_flight_many_times(client: Client) -> None:
    warm(client)
    one = tensor(3)
    results = [client.infer([one]) for _ in range(5)]
    places = {result._umo_places["OUT"].offset for result in results}
    assert len(places) == 5 and all((result.as_numpy("OUT") == 3).all() for result in results)


def test_after_a_fork_neither_writes_into_what_the_other_sees(client: Client, server: Played) -> None:
    warm(client)
    held: list[Any] = [ask(client, 1), tensor(2)]
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        there.recv()
        own = Client(Played())
        same = [bool((held[0] == 1).all()), bool((own.infer([held[1]]).as_numpy("OUT") == 2).all())]
        for value in range(4):
            ask(own, value)
        same.append(own.server.last == {"in": True, "out": True})
        there.send(same)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    held.clear()  # the parent is done with its ring, unregisters it and gives its pages back
    for value in range(20):
        ask(client, 100 + value)
    here.send("go")
    assert here.poll(30) and here.recv() == [True, True, True]
    process.join()
    ask(client, 5)
    assert server.last == {"in": True, "out": True}


def test_a_process_ends_without_a_word(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_client_link as t;"
        "c = t.Client(t.Played()); keep = [t.ask(c, v) for v in range(9)]; one = t.tensor(3); print('end')"
    )
    paths = [str(Path(__file__).parent), str(Path(links.__file__).parents[2])]
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code, *paths], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("end\n", "", 0)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("localhost:8000", True),
        ("LOCALHOST:8000/base", True),
        ("127.0.0.1:8001", True),
        ("127.9.9.9", True),
        ("[::1]:8001", True),
        ("::1", True),
        ("ipv4:127.0.0.1:80", True),
        ("ipv6:[::1]:80", True),
        ("dns:///localhost:80", True),
        ("unix:/run/triton", True),
        ("unix:///run/triton", True),
        ("unix-abstract:triton", True),
        ("10.0.0.1:8000", False),
        ("localhost.example.com:8000", False),
        ("example.com:8000/localhost", False),
        ("[2001:db8::1]:8000", False),
        ("", False),
    ],
)
def test_what_may_be_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local
    assert Link(links._off_by_default(url)).transport.shared_memory is False
    assert bool(links._off_by_default(url)) is not local


def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch, server: Played) -> None:
    monkeypatch.setenv("UMO_CLIENT_SHARED_MEMORY", "0")
    client = Client(server)
    warm(client)
    assert server.last == {"in": False, "out": False}
    assert "UMO_CLIENT_SHARED_MEMORY" in client.transport.reason
