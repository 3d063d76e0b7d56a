"""What the report says in words. Every statement follows from the numbers at hand."""

from dimerec.evaluation.intervals import Interval, difference
from dimerec.experiments.demo import METRIC, SHORT, Demo
from dimerec.experiments.findings import Findings

N = METRIC.partition("@")[2]


def percent(share: float) -> str:
    """A share as percent, one decimal."""
    return f"{100 * share:.1f}\u00a0%"


def points(gap: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    signed = (f"{round(100 * v, 1) + 0.0:+.1f}" for v in (gap.value, gap.low, gap.high))
    value, low, high = (v.replace("-", "−") for v in signed)
    return f"{value} points (95\u00a0% interval {low} to {high})"


def lead(demo: Demo) -> str:
    """One sentence at the top."""
    first = demo.rows[0]
    best = max(demo.rows, key=lambda r: r.metrics[METRIC])
    told = (
        f"{first.label} ranks the film that a new viewer really watched next among its first {N} "
        f"in {percent(first.metrics[METRIC])} of {first.evaluation.card.queries:,} cases"
    )
    if best is first:
        return told + ", the highest figure in this comparison."
    told += f". The highest figure, {percent(best.metrics[METRIC])}, is that of {best.label}"
    return told + ("." if best.gap.is_clear else ", too close to be told apart.")


def ranking(demo: Demo) -> str:
    """Which rows are clearly above or below the first, and which cannot be told apart."""
    first, *others = demo.rows
    above = [r.label for r in others if r.gap.low > 0]
    below = [r.label for r in others if r.gap.high < 0]
    open_ = [r.label for r in others if not r.gap.is_clear]
    said = []
    if above:
        said.append(f"Better than {first.label} on these test users: {_and(above)}.")
    if below:
        said.append(f"Worse than {first.label}: {_and(below)}.")
    if open_:
        verb = "is" if len(open_) == 1 else "are"
        said.append(
            f"{_and(open_)} {verb} not to be told apart from {first.label} by these test users."
        )
    said.append(
        "Lines show where 95\u00a0% of the figures fall when the test users are drawn anew; "
        "differences are judged user by user, so they can be clear where lines overlap. What "
        "another training seed would change is not in the lines: try --seed 1."
    )
    return " ".join(said)


def diffusion(demo: Demo) -> str:
    """What the diffusion adds over x_t = 0."""
    none = demo.row("dimerec-none")
    told = (
        "x_t = 0 is the same network without any diffusion: trained alike, it never sees noise. "
        f"Its figure less {demo.rows[0].label}'s: {points(none.gap)}. "
    )
    if not none.gap.is_clear:
        return told + (
            "The interval holds zero: on these data and at this budget the diffusion adds nothing "
            "that could be measured in hit rate."
        )
    if none.gap.value < 0:
        return told + "On these test users, with this one training seed, the diffusion helps."
    return told + (
        "On these test users, with this one training seed, the model is better off without the "
        "diffusion."
    )


def steps(found: Findings) -> str:
    """What more denoising steps do."""
    numbers = list(found.steps)
    one, most = found.steps[numbers[0]], found.steps[numbers[-1]]
    gap = difference(most, one, METRIC)
    told = f"{numbers[-1]} denoising steps instead of {numbers[0]}: {points(gap)}. "
    if not gap.is_clear:
        return told + "More steps neither help nor hurt."
    return told + ("More steps help." if gap.value > 0 else "More steps hurt.")


def chain(found: Findings) -> str:
    """What happens along one long chain."""
    first, last = 0, -1
    noisy, clean = found.chain.noisy, found.chain.clean
    return (
        f"In one chain of {len(noisy)} steps, retrieval with the noisy vector itself goes from "
        f"{percent(noisy[first])} to {percent(noisy[last])}, with the model's prediction of the "
        f"clean vector from {percent(clean[first])} to {percent(clean[last])}."
    )


def losses(found: Findings) -> str:
    """How the loss parts moved."""
    parts = found.curves["dimerec"].losses
    moved = [f"L_{name} from {v[0]:.2f} to {v[-1]:.2f}" for name, v in parts.items()]
    return (
        f"{_and(moved)}. L_gem pulls the closest interest to the next film, L_recon the denoised "
        "vector to that film's, and L_ssm ranks the film above others."
    )


def best_step(demo: Demo) -> str:
    """Which weights were kept."""
    learned = [r for r in demo.rows if r.learned]
    late = [r.label for r in learned if r.run.best_step == r.run.steps]
    told = "The weights that ranked the validation users best are kept: "
    if len(late) == len(learned):
        return told + "for every model those of the last step, so none had stopped improving."
    kept = [f"{r.label} at step {r.run.best_step:,}" for r in learned]
    told += f"{_and(kept)}."
    if late:
        verb = "had" if len(late) > 1 else "has"
        told += f" {_and(late)} {verb} not stopped improving."
    return told


def categories(demo: Demo) -> str:
    """Whose lists are the most and the least mixed."""
    name = f"categories@{SHORT}"
    order = sorted(demo.rows, key=lambda r: -r.metrics[name])
    most, least, first = order[0], order[-1], demo.rows[0]
    told = (
        f"In a list of {SHORT}, {most.label} mixes the most genres ({most.metrics[name]:.1f}) and "
        f"{least.label} the fewest ({least.metrics[name]:.1f})"
    )
    if first not in (most, least):
        told += f"; {first.label} has {first.metrics[name]:.1f}"
    cover = max(demo.rows, key=lambda r: r.metrics["coverage@20"])
    return told + (
        f". Over all lists of {SHORT}, {cover.label} shows the most of the catalogue "
        f"({percent(cover.metrics['coverage@20'])}), {first.label} "
        f"{percent(first.metrics['coverage@20'])}."
    )


def showcase(found: Findings) -> str:
    """Who is shown, and how the lists did."""
    shown = found.showcase
    hits = [f"{label} {sum(i.hit for i in items)}" for label, items in shown.lists.items()]
    return (
        f"User {shown.user}, the test user with a middling number of films, after "
        f"{len(shown.history)} of them. Of each list's ten, so many are among the next "
        f"{len(shown.later)} the user really watched: {_and(hits)}."
    )


def map_of_items(found: Findings) -> str:
    """What the map can and cannot show."""
    near = found.neighbours
    return (
        f"The {len(found.map.numbers):,} most watched films, flattened to the two directions in "
        f"which their vectors differ most; these hold {percent(found.map.share)} of the variance, "
        "so neighbours here need not be neighbours in the model. In the full space, "
        f"{percent(near.alike)} of a film's ten nearest films share its genre; at random it would "
        f"be {percent(near.chance)}. A film counts under the rarest of its frequent genres."
    )


def card(demo: Demo) -> list[tuple[str, str]]:
    """The run's card: names and values."""
    card = demo.rows[0].evaluation.card
    sampling = ", ".join(f"{name} {value}" for name, value in card.sampling.items())
    stages = ", ".join(f"{name} {duration(s)}" for name, s in demo.seconds.items())
    return [
        ("Data", f"{card.dataset}, digest {card.digest}"),
        ("Split", f"{card.protocol.name}, seed {card.protocol.seed}"),
        ("Scored", f"{card.split}, {card.positions}: {card.queries:,} queries, {card.users} users"),
        ("Candidates", f"{card.candidates}; seen items {'hidden' if card.hide_seen else 'kept'}"),
        ("Cold targets", f"{card.cold_targets:,}, without a training event; they count"),
        ("Ties", card.ties),
        ("History", f"the last {card.length} films"),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in card.seeds.items())),
        *([("Sampling", f"{demo.rows[0].label}: {sampling}")] if sampling else []),
        ("Settings", ", ".join(demo.settings.changes)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ("Machine", f"{card.machine.device}, {card.machine.cpus} cores, one thread a model"),
        ("Times", stages),
    ]


def duration(seconds: float) -> str:
    """For people: seconds under two minutes, else minutes and seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
