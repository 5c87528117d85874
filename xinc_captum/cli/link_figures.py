"""The figures of an audit by the question they answer, each beside its control."""

from ..attributions.linking import LinkAudit
from ..metrics.bootstrap import Interval
from ..visualizers import Measured


def figures(audit: LinkAudit) -> dict[str, list[Measured]]:
    """What was measured, for :func:`xinc_captum.visualizers.link_audit`; groups without figures are left out."""
    explained = [_measured("R²", audit.r2, audit.class_mean_r2, "class means alone")]
    if audit.classes > 1:
        within = _measured("R² within classes", audit.r2_within, audit.shuffled_within, "shuffled within classes")
        explained += [within, _measured("two-layer network, within", audit.mlp_r2_within, None, "")]
    else:  # then the mean is all that class means are, and no picture drawn can lose its class
        explained = [_measured("R²", audit.r2, audit.shuffled_within, "shuffled")]
        explained.append(_measured("two-layer network", audit.mlp_r2_within, None, ""))
    generated = audit.generated if audit.classes > 1 else None
    kept = [
        _measured("generated pictures", generated, audit.class_mean_agreement, "class means alone"),
        _measured("real pictures", audit.real, audit.class_mean_agreement, "class means alone"),
    ]
    back = [_measured("R² of the representation", audit.cycle_r2, None, "")]
    if audit.unit_cycle is not None:
        units = audit.unit_cycle[audit.unit_cycle.isfinite()]
        if len(units):
            low, middle, high = (float(units.double().quantile(q)) for q in (0.25, 0.5, 0.75))
            back.append(Measured("units, correlation", middle, low, high, None, ""))
    back.append(_measured("of searched latents", audit.search_cycle_r2, audit.search_from, "where the search began"))
    shared = []
    if audit.order is not None:
        order = audit.order
        shared = [
            _measured(f"between classes{_chance(order.between_p)}", order.between, None, ""),
            _measured(f"within classes{_chance(order.within_p)}", order.within, None, ""),
            _measured("nearest neighbours", order.neighbours, order.neighbours_chance, "by chance"),
        ]
    groups = {
        f"How much of the latent does the link explain, on {audit.pairs:,} pairs it has not seen?": explained,
        "Does a picture keep its class through the link?": kept,
        "Does the unit come back? Link, draw, and look again (units: the middle half of them)": back,
        "Do both spaces put the same things near one another?": shared,
    }
    found = {name: [one for one in group if one is not None] for name, group in groups.items()}
    return {name: group for name, group in found.items() if group}


def _chance(p: float | None) -> str:
    """How often shuffled classes, or rows within them, do as well."""
    return "" if p is None else f", p {p:.2f}" if p >= 0.01 else ", p < .01"


def _measured(name: str, value: Interval | float | None, control: float | None, said: str) -> Measured | None:
    if value is None:
        return None
    if isinstance(value, Interval):
        return Measured(name, value.value, value.low, value.high, control, said)
    return Measured(name, value, value, value, control, said)
