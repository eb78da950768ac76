"""What devices send each other, counted from the text of compiled programs."""

import json

import pytest

from regrpo_jax.plan.compiled_text import Exchange, exchanges
from tests.many_devices import run_on_many_devices

TEXT = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%steps (p: bf16[8,64]) -> bf16[32,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  ROOT %gather.2 = bf16[32,64]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups={{0,2,4,6},{1,3,5,7}}
}

%steps.clone (p: bf16[8,64]) -> bf16[32,64] {
  ROOT %gather.3 = bf16[32,64]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups={{0,2,4,6},{1,3,5,7}}
}

%condition (state: (s32[], bf16[8,64])) -> pred[] {
  %last = s32[]{:T(128)} constant(28)
  %state = (s32[], bf16[8,64]) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%number, %last), direction=LT
}

%body (state: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {
  %kernel = s32[] custom-call(%state), custom_call_target="tpu_custom_call", backend_config={"text":"
}
func.func {
"}
  %start = bf16[32,64] fusion(%part), kind=kCustom, calls=%steps
  %end = bf16[32,64] fusion(%start), kind=kCustom, calls=%steps.clone
  %both = (f32[4,16], /*index=1*/f32[16]) all-reduce(%a, %b), channel_id=9, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %next = (s32[], bf16[8,64]) tuple(%number, %part)
}

ENTRY %main (argument: bf16[8,64]) -> f32[] {
  %loop = (s32[], bf16[8,64]) while(%first), condition=%condition, body=%body, backend_config={}
  %scattered = f32[10]{0} reduce-scatter(%whole), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  %alone = f32[5] all-reduce(%one), channel_id=4, replica_groups={{0},{1}}, to_apply=%add
  %moved = (f32[6], f32[6]) collective-permute-start(%six), channel_id=5, source_target_pairs={{0,1}}
}
"""


def test_a_loop_counts_as_often_as_it_runs_and_a_channel_once() -> None:
    found = {one.kind: one for one in exchanges(TEXT)}
    assert len(exchanges(TEXT)) == 4  # nothing is sent in a group of one
    assert found["all-gather"] == Exchange("all-gather", (32, 64), 32 * 64 * 2 * 3 / 4, 28)
    assert found["all-reduce"] == Exchange("all-reduce", (4, 16), 2 * (64 + 16) * 4 / 2, 28)
    assert found["reduce-scatter"] == Exchange("reduce-scatter", (10,), 10 * 4 * 7, 1)
    assert found["collective-permute"].times == 1


def test_what_the_compiler_knows_of_a_loop_comes_first() -> None:
    text = TEXT.replace("backend_config={}", 'backend_config={"known_trip_count":{"n":"3"}}')
    assert {one.times for one in exchanges(text)} == {1, 3}


@pytest.mark.parametrize("unknown", ["constant(28)", "s32[]{:T(128)} constant"])
def test_a_loop_that_nobody_counted_counts_once(unknown: str) -> None:
    assert {one.times for one in exchanges(TEXT.replace(unknown, "parameter(1)"))} == {1}


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        ("[4,2]<=[8]", 2),
        ("[2,4]<=[4,2]T(1,0)", 4),
        ("{{0,1,2},{3,4,5}}", 3),
        ("mesh['axis_0'=1,'axis_1'=2,'axis_2'=8] {'axis_2'}", 8),
        ("mesh['axis_0'=2,'axis_1'=8,'axis_2'=16], device_ids=([256]T(1,0)) {'axis_0','axis_2'}", 32),
        ("mesh['a'=4,'b'=8] {'a','b':(2)4}", 16),
        ("{}", 8),
    ],
)
def test_every_form_in_which_devices_are_named(groups: str, members: int) -> None:
    line = f"%sum = f32[10] all-reduce(%x), replica_groups={groups}, to_apply=%add"
    text = f"HloModule m, num_partitions=8\nENTRY %main (x: f32[]) -> f32[10] {{\n  {line}\n}}\n"
    (found,) = exchanges(text)
    assert found.bytes == pytest.approx(2 * 40 * (members - 1) / members)
    with pytest.raises(ValueError, match="no known form"):
        exchanges(text.replace(groups, "unheard-of"))


SCRIPT = """
import json
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from regrpo_jax.plan.compiled_text import exchanges
from regrpo_jax.training.parallel import device_mesh

mesh = device_mesh(jax.devices()[:8], fsdp=4, model=2)

def layers(stack, rows):
    def layer(hidden, part):
        return hidden @ jax.lax.all_gather(part, "fsdp", axis=0, tiled=True), None
    return jax.lax.psum(jnp.sum(jax.lax.scan(layer, rows, stack)[0]), ("data", "fsdp"))

split = jax.shard_map(layers, mesh=mesh, in_specs=(P(None, "fsdp"), P("fsdp")), out_specs=P(), check_vma=False)
stack = jax.ShapeDtypeStruct((5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, P(None, "fsdp")))
rows = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))
found = exchanges(jax.jit(split).lower(stack, rows).compile().as_text())
print(json.dumps([[one.kind, one.shape, one.bytes, one.times] for one in found]))
"""


def test_of_a_program_that_is_really_compiled() -> None:
    done = run_on_many_devices(SCRIPT)
    assert done.returncode == 0, done.stderr
    found = {kind: rest for kind, *rest in json.loads(done.stdout.splitlines()[-1])}
    assert found["all-gather"] == [[16, 16], 16 * 16 * 4 * 3 / 4, 5]
    assert found["all-reduce"][1:] == [2 * 4 * 3 / 4, 1]
