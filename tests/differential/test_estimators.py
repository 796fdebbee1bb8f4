"""Model states equal what the installed DeepSpeed's own estimators say, to the byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs

from orchestrator.estimate import ModelShape, ModelStates, Settings, World, deepspeed_model_states

installed = needs("deepspeed.runtime.zero.stage3", "deepspeed.runtime.zero.stage_1_and_2")
PARAMETERS = st.integers(1, 2 * 10**12)
WORLDS = st.builds(World, st.integers(1, 20_000), st.integers(1, 16))
OFFLOADS = st.sampled_from(["none", "cpu", "nvme"])


@settings(deadline=None)
@given(PARAMETERS, WORLDS, OFFLOADS)
def test_stage_2(parameters, world, offload):
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    host, gpu = estimate_zero2_model_states_mem_needs(
        parameters, world.gpus_per_node, world.nodes, cpu_offload=offload != "none"
    )
    ours = deepspeed_model_states(
        ModelShape(parameters, parameters), Settings(stage=2, offload_optimizer=offload), world
    )
    assert ours == ModelStates(gpu, host)


@settings(deadline=None)
@given(
    PARAMETERS,
    st.floats(0, 1),
    WORLDS,
    st.tuples(OFFLOADS, OFFLOADS),
    st.booleans(),
)
def test_stage_3(parameters, part, world, offloads, zero_init):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    optimizer, param = offloads
    layer = round(parameters * part)
    host, gpu, _ = estimate_zero3_model_states_mem_needs(
        parameters,
        layer,
        world.gpus_per_node,
        world.nodes,
        cpu_offload=optimizer != "none",
        cpu_offload_params=param != "none",
        zero_init=zero_init,
    )
    wish = Settings(stage=3, offload_optimizer=optimizer, offload_param=param, zero_init=zero_init)
    ours = deepspeed_model_states(ModelShape(parameters, parameters, largest_layer=layer), wish, world)
    assert ours == ModelStates(gpu, host)
