"""How much of x_0 is left in x_t? Mean cosines under each noise space and schedule.

Three tables: the forward process of each space under the recipes' schedule, its end under every
schedule, and the reverse chain when the prediction is exactly x_0. Nothing is trained. The
exponential map is shown a second time with the noise divided by sqrt(d), which the package does
not offer. Prints Markdown and writes `results/noise.json`.

    python benchmarks/bench_noise.py [--width 64] [--draws 4000]
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dimerec.diffusion.spaces import SpaceName, exponential_map, space, tangent

STEPS, SHOWN = 20, (1, 2, 3, 4, 5, 7, 10, 14, 20)
SHORT = "sphere-exponential, noise / sqrt(d)"
SCHEDULES = {
    "scaled-linear": ScheduleConfig(kind="scaled-linear", steps=STEPS),
    "linear": ScheduleConfig(kind="linear", steps=STEPS),
    "linear, T = 1000": ScheduleConfig(kind="linear", steps=1000),
    "cosine": ScheduleConfig(kind="cosine", steps=STEPS),
    "sqrt": ScheduleConfig(kind="sqrt", steps=STEPS),
    "truncated-linear": ScheduleConfig(kind="truncated-linear", steps=STEPS),
}


def forward(schedule: NoiseSchedule, name: str, t: int, x0: Tensor, noise: Tensor) -> float:
    """Mean cosine of x_t and x_0; both `[draws, d]`."""
    at = torch.full((len(x0),), t)
    if name == SHORT:
        spread = float(1 - schedule.alpha_bar[t]) ** 0.5
        xt = exponential_map(x0, spread * tangent(x0, noise) / x0.shape[1] ** 0.5)
    else:
        xt = space(name, schedule).diffuse(x0, at, noise)  # type: ignore[arg-type]
    return cosine(xt, x0)


def reverse(
    schedule: NoiseSchedule, x0: Tensor, rng: torch.Generator, size: Callable[[float], float]
) -> list[float]:
    """Mean cosine of x_{T-1}, .., x_0 with x_0 down Algorithm 2, x_0-hat = x_0.

    `size` makes the noise's factor of beta~.
    """
    x = F.normalize(torch.randn(x0.shape, generator=rng), dim=-1)
    found = []
    for t in range(schedule.steps, 0, -1):
        on_xt, on_x0, variance = schedule.posterior(t, t - 1)
        fresh = torch.randn(x0.shape, generator=rng)
        x = F.normalize(on_xt * x + on_x0 * x0 + size(variance) * fresh, dim=-1)
        found.append(cosine(x, x0))
    return found


def cosine(x: Tensor, y: Tensor) -> float:
    return float(F.cosine_similarity(x, y, dim=-1).mean())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table; numbers to two places."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * (len(columns) - 1))
    for row in rows:
        cells = [f"{c:.2f}" if isinstance(c, float) else str(c) for c in row]
        print(f"| {' | '.join(cells)} |".replace("-0.00", "0.00"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--draws", type=int, default=4000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    x0 = F.normalize(torch.randn(given.draws, given.width, generator=rng), dim=-1)
    noise = torch.randn(x0.shape, generator=rng)
    names = [*get_args(SpaceName), SHORT]
    schedules = {name: NoiseSchedule(config) for name, config in SCHEDULES.items()}

    main_one = schedules["scaled-linear"]
    by_step = [
        [t, *(forward(main_one, name, t, x0, noise) for name in names)] for t in range(1, STEPS + 1)
    ]
    table(
        f"cos(x_t, x_0), scaled-linear, T = {STEPS}, d = {given.width}",
        ("t", *names),
        (row for row in by_step if row[0] in SHOWN),
    )

    by_schedule = []
    for title, schedule in schedules.items():
        times = range(1, schedule.steps + 1, max(1, schedule.steps // STEPS))
        lowest = min(forward(schedule, "sphere-exponential", t, x0, noise) for t in times)
        noisy = (schedule.alpha_bar.sqrt()[1:] <= 0.03).nonzero()
        first = int(noisy[0]) + 1 if len(noisy) else "none"
        last = [forward(schedule, name, schedule.steps, x0, noise) for name in names]
        by_schedule.append([title, *last, lowest, first])
    table(
        "cos(x_T, x_0); the lowest of about 20 t; the first t with sqrt(alpha_bar_t) <= 0.03",
        ("schedule", *names, "lowest, sphere-exponential", "first t"),
        by_schedule,
    )

    down = [
        reverse(main_one, x0, rng, lambda variance: variance**0.5),
        reverse(main_one, x0, rng, lambda variance: variance),
    ]
    trained = [*(row[2] for row in by_step[-2::-1]), 1.0]  # sphere-exponential at T-1 .. 0
    by_reverse = [list(row) for row in zip(range(STEPS - 1, -1, -1), *down, trained, strict=True)]
    table(
        "cos(x_t, x_0) down Algorithm 2 with x_0-hat = x_0, and of the x_t that trained it",
        ("t", "sqrt(beta~) eps", "beta~ eps", "trained on (sphere-exponential)"),
        (row for row in by_reverse if row[0] in (0, *SHOWN)),
    )

    result = {
        "width": given.width,
        "draws": given.draws,
        "spaces": names,
        "by_step": by_step,
        "by_schedule": by_schedule,
        "reverse": by_reverse,
    }
    out = Path(__file__).parent / "results" / "noise.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
