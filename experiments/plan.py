"""Say what a training step takes on devices that need not be there, before paying for them.

python experiments/plan.py experiment=gpt_nano_text mesh.fsdp=8
python experiments/plan.py experiment=gpt_nano_text model.layers=24 model.width=1024 mesh.data=-1
       mesh.tensor=8 devices=64 tflops=400 link=100
python experiments/plan.py experiment=gpt_nano_text mesh.fsdp=8 memory=16    what fits into 16 GB

The step is compiled for as many virtual devices; nothing is computed. Printed are the bytes on one
device, what it exchanges with others, a step's time by the given rates, and, for a given memory,
the largest micro-batch with each way of keeping activations.
"""

import dataclasses
from typing import Any

import frame

from functorch_kit.config import OF_WHOLE_RUNS, Config, ConfigError, setting

_MOST = 4096


@dataclasses.dataclass
class Plan(Config):
    devices: int | None = setting(
        None, "how many there are; null: as many as the mesh takes", least=1, most=_MOST
    )
    memory: float | None = setting(None, "of a device, in GB; null: any", above=0, most=1e6)
    tflops: float = setting(100.0, "operations a second of a device, in 10^12", above=0, most=1e9)
    link: float = setting(50.0, "bytes a second that a device sends, in GB", above=0, most=1e9)


def devices_of(config: Plan) -> int:
    sizes = dataclasses.asdict(config.mesh)
    sizes["data"] = 1 if sizes["data"] is None else sizes["data"]
    product = 1
    for size in sizes.values():
        product *= abs(size)
    if config.devices is None and sizes["data"] == -1:
        raise ConfigError("mesh.data is -1: say how many devices there are, as devices=8")
    return config.devices or product


def plan(config: Plan, job: frame.Job) -> None:
    import jax

    # Before JAX counts its devices, which it does once.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices_of(config))
    from functorch_kit import distributed, planning, program
    from functorch_kit.config import build

    program.use_cache()
    arguments = build(config).fit_arguments()
    mesh = arguments["mesh"] or distributed.make_mesh(data=1, devices=jax.devices()[:1])
    layout = distributed.Layout(mesh, arguments["rules"])
    rates = planning.Rates(config.tflops * 1e12, config.link * 1e9)
    parts = {name: arguments[name] for name in ("model", "objective", "optimizer")}
    parts |= {"batch": arguments["data"].train.spec, "layout": layout}
    given: dict[str, Any] = {
        "hparams": arguments["hparams"], "options": arguments["options"], "rates": rates,
    }  # fmt: skip
    found = planning.predict(**parts, **given)
    show(found, distributed.axis_sizes(mesh))
    if config.memory is None:
        return
    fits = planning.fitting(**parts, memory=config.memory * 1e9, **given)
    if not fits:
        raise ConfigError(
            f"not one example fits into {config.memory:g} GB: give a larger mesh.fsdp or"
            " mesh.tensor"
        )
    print(f"into {config.memory:g} GB fit, the quickest first:")
    for each in fits:
        kept = f"blocks keep {each.policy}" if each.policy else "everything is kept"
        rate = each.batch_size / each.seconds[1]
        print(
            f"  micro-batch {each.micro_batch:>5}  {kept:<32}  {size(each.peak_bytes)}"
            f"  {rate:,.1f} examples/s"
        )


def show(found: Any, mesh: dict[str, int]) -> None:
    grid = " × ".join(f"{name} {parts}" for name, parts in mesh.items()) or "one device"
    print(f"{grid}: {found.parameters:,} parameters, {found.batch_size} examples a step")
    print("on one device")
    for name in ("params", "opt", "batch", "activation", "peak"):
        words = {"opt": "optimizer state", "activation": "activations", "params": "parameters"}
        print(f"  {words.get(name, name):<16} {size(getattr(found, f'{name}_bytes'))}")
    if found.exchanged:
        print("exchanged in a step")
    for each in found.exchanged:
        print(f"  {each.kind:<20} {each.times:>5} × among {each.group:<4} {size(each.size)}")
    least, most = (1e3 * seconds for seconds in found.seconds)
    print(f"a step takes {least:,.3f} to {most:,.3f} ms, by the given rates")


def size(number: float) -> str:
    from functorch_kit.report.quantities import size

    return f"{size(number):>10}"


if __name__ == "__main__":
    unused = [name for name in OF_WHOLE_RUNS if not name.startswith("mesh.")]
    frame.run(plan, Plan, unused=unused)
