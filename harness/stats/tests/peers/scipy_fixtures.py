#!/usr/bin/env python3
"""Writes data/signed_rank.json: what scipy says of some samples, which the tests hold this crate to.

Needs numpy and scipy. The samples are the same each time.
"""

import json
import pathlib

import numpy as np
from scipy import stats

LEVELS = [0.005, 0.02, 0.05]


def exact(values, side):
    return stats.wilcoxon(values, alternative=side, method="exact").pvalue


def permuted(values, side):
    method = stats.PermutationMethod(n_resamples=1 << 20)
    test = stats.wilcoxon(values, alternative=side, zero_method="pratt", method=method)
    return test.pvalue


def bounds(values, level):
    """Those shifts that neither one-sided test rejects, by trying one between each two Walsh averages."""
    i, j = np.triu_indices(len(values))
    walsh = np.sort((values[i] + values[j]) / 2)
    steps = np.concatenate([[walsh[0] - 1], (walsh[1:] + walsh[:-1]) / 2, [walsh[-1] + 1]])
    low = next(k for k, at in enumerate(steps) if exact(values - at, "greater") > level)
    high = next(k for k, at in enumerate(steps[::-1]) if exact(values - at, "less") > level)
    # Step k lies below walsh[k], so everything down to walsh[k - 1] is kept.
    return (None if low == 0 else walsh[low - 1], None if high == 0 else walsh[-high])


def sample(random, n, kind):
    values = {
        "gauss": lambda: random.normal(0.03, 0.05, n),
        "t3": lambda: 0.03 * random.standard_t(3, n),
        "skewed": lambda: random.exponential(0.05, n) - 0.04,
    }[kind]()
    shift = 0.02
    return {
        "kind": kind,
        "values": values.tolist(),
        "shift": shift,
        "above": exact(values - shift, "greater"),
        "below": exact(values - shift, "less"),
        "centre": float(np.median([(a + b) / 2 for k, a in enumerate(values) for b in values[k:]])),
        "bounds": [[level, *bounds(values, level)] for level in LEVELS],
    }


def main():
    random = np.random.default_rng(20261122)
    sizes = [4, 5, 7, 8, 9, 12, 15, 20, 25, 30, 45]
    plain = [sample(random, n, kind) for n in sizes for kind in ("gauss", "t3", "skewed")]
    tied = []
    for n in (5, 6, 8, 9, 10):
        for _ in range(4):
            # On a grid, with the shift on it: ties of both kinds, and zeros.
            values = random.integers(-2, 5, n) / 64
            shifted = values - 1 / 64
            if not shifted.any():
                continue
            above, below = permuted(shifted, "greater"), permuted(shifted, "less")
            tied.append({"values": values.tolist(), "shift": 1 / 64, "above": above, "below": below})
    path = pathlib.Path(__file__).parent.parent / "data" / "signed_rank.json"
    path.write_text(json.dumps({"plain": plain, "tied": tied}, indent=None) + "\n")


if __name__ == "__main__":
    main()
