#!/usr/bin/env python3
"""Change points beside those of other programs.

fixtures           writes data/change_points.json: series, the strongest split that apache-otava sees
                   in them, and the changes that it and ruptures find; the tests hold this crate to it
compare PROGRAM N  runs PROGRAM (the example `changes`) and the others on N new series of each kind,
                   and prints how well each finds; fails where this crate is worse than it promises

`ci/peers` calls it in an environment that has what it needs.
"""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import ruptures
from otava.analysis import compute_change_points, compute_change_points_orig
from otava.change_point_divisive.calculator import PairDistanceCalculator

LEAST = 5
NEAR = 3


def noise(random, kind, points):
    if kind == "gauss":
        return random.standard_normal(points)
    if kind == "t3":
        return random.standard_t(3, points) / math.sqrt(3)
    wild = np.where(random.random(points) < 0.05, 10.0, 1.0)
    return wild * random.standard_normal(points)


def strongest(series):
    """The largest value of otava's own statistic with at least LEAST points on either side."""
    calculator = PairDistanceCalculator(np.array(series))
    values = calculator._get_Q_vals(0, len(series))
    best = (-math.inf, 0, 0)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            at, end = i + 1, j + 2
            if at >= LEAST and end - at >= LEAST and values[i, j] > best[0]:
                best = (float(values[i, j]), at, end)
    return best


def otava(series):
    return [int(change.index) for change in compute_change_points(list(series))[0]]


def e_divisive(series):
    found, _ = compute_change_points_orig(np.array(series), max_pvalue=0.01, seed=1)
    return [int(change.index) for change in found]


def pelt(series):
    """With the usual penalty, in units of a variance that shifts don't raise."""
    values = np.array(series)
    sigma = np.median(np.abs(np.diff(values))) / (math.sqrt(2) * 0.6745)
    if sigma == 0:
        return []
    search = ruptures.Pelt(model="l2", min_size=LEAST, jump=1).fit(values)
    return search.predict(pen=3 * math.log(len(values)) * sigma**2)[:-1]


def fixtures():
    random = np.random.default_rng(20261122)
    levels = {
        "none": lambda at: 0,
        "one shift": lambda at: 4 * (at >= 48),
        "two shifts": lambda at: [0, 4, -1][at // 30] if at < 90 else -1,
        "a bump": lambda at: 5 * (40 <= at < 52),
        "stairs": lambda at: 5 * (at // 20),
    }
    all = []
    for name, level in levels.items():
        for kind in ("gauss", "t3", "outliers"):
            values = np.array([level(at) for at in range(80)]) + noise(random, kind, 80)
            series = [round(float(value), 4) for value in values]
            strength, at, end = strongest(series)
            all.append({
                "name": f"{name}, {kind}",
                "series": series,
                "strongest": {"at": at, "end": end, "strength": strength},
                "e-divisive": e_divisive(series),
                "pelt": [int(at) for at in pelt(series)],
            })
    path = pathlib.Path(__file__).parent.parent / "data" / "change_points.json"
    path.write_text("[\n" + ",\n".join(json.dumps(one) for one in all) + "\n]\n")


def compare(program, rounds):
    random = np.random.default_rng(1)
    rows, series = [], []
    levels = {
        "none": (lambda at: 0, []),
        "2 sigma at 60": (lambda at: 2 * (at >= 60), [60]),
        "8 points of 4 sigma": (lambda at: 4 * (46 <= at < 54), [46, 54]),
    }
    for name, (level, edges) in levels.items():
        for kind in ("gauss", "t3", "outliers"):
            shape = np.array([level(at) for at in range(100)])
            rows.append((name, kind, edges))
            series.append([(shape + noise(random, kind, 100)).tolist() for _ in range(rounds)])
    lines = "".join(json.dumps(one) + "\n" for some in series for one in some)
    ran = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    ours = iter([json.loads(line) for line in ran.stdout.splitlines()])
    failed = []
    print(f"of {rounds} series of 100 points: without a change, those with one found; else, all found")
    print(f"{'':22}{'':10}{'dmarig':>10}{'otava':>10}{'PELT':>10}")
    for (name, kind, edges), some in zip(rows, series):
        found = {"dmarig": [next(ours) for _ in some], "otava": map(otava, some), "PELT": map(pelt, some)}
        parts = {who: part(list(places), edges) for who, places in found.items()}
        print(f"{name:22}{kind:10}" + "".join(f"{100 * value:9.1f}%" for value in parts.values()))
        slack = 4 * math.sqrt(0.01 * 0.99 / rounds)
        if not edges and parts["dmarig"] > 0.015 + slack:
            failed.append(f"{name}, {kind}: false positives")
        if edges and parts["dmarig"] < parts["otava"] - 0.05:
            failed.append(f"{name}, {kind}: finds fewer than otava")
    for failure in failed:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failed else 0


def part(found, edges):
    def hit(places):
        if not edges:
            return bool(places)
        return all(any(abs(at - edge) <= NEAR for at in places) for edge in edges)

    return sum(map(hit, found)) / len(found)


if __name__ == "__main__":
    if sys.argv[1:] == ["fixtures"]:
        fixtures()
    elif len(sys.argv) == 4 and sys.argv[1] == "compare":
        sys.exit(compare(sys.argv[2], int(sys.argv[3])))
    else:
        sys.exit(__doc__)
