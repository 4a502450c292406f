"""Structures read beside gemmi alone, and homologues among many sequences: how long it takes and what is missed.

The files are entries of the archive that come with tmtools, as they were deposited. Reading here also counts records,
places atoms by residue and takes the sequences; the peer parses and does nothing with it. Rounds are interleaved;
figures are medians. The sequences are families made by random changes of residues, more of one site than of another,
and by gaps: a root and its relatives, of which two share 35 to 90 % of their residues. What is missed is told beside
the alignment of all pairs, of fewer sequences, for that takes hours of many.

    python evals/bench/structures.py [--rounds 5] [--sequences 10000] [--all-pairs 600]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt
import tmtools

from speciate.datasets.similarity import near_duplicates
from speciate.modalities.biology import homology, protein_structures
from speciate.modalities.biology.homology import HOMOLOGY

LETTERS = np.array(list("ARNDCQEGHILKMFPSTWYV"))
SHARES = np.array([8.3, 5.5, 4.1, 5.5, 1.4, 3.9, 6.7, 7.1, 2.3, 5.9, 9.7, 5.8, 2.4, 3.9, 4.7, 6.6, 5.4, 1.1, 2.9, 6.9])
FAMILY, LENGTH = 8, 300


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--all-pairs", type=int, default=600)
    arguments = parser.parse_args()
    if arguments.rounds:
        reading(arguments.rounds)
    if arguments.all_pairs:
        missed(families(arguments.all_pairs, seed=1))
    if arguments.sequences:
        many(families(arguments.sequences, seed=2))


def reading(rounds: int) -> None:
    print("| file | MB | ours ms | gemmi ms |\n|---|---|---|---|")
    for path in sorted((Path(tmtools.__file__).parent / "data").glob("*.[pc]*")):
        data = path.read_bytes()
        ours, theirs = interleaved(
            [lambda data=data: protein_structures.read(data), lambda data=data: parsed(data)], rounds
        )
        print(f"| {path.name} | {len(data) / 1e6:.1f} | {ours:.0f} | {theirs:.0f} |", flush=True)


def parsed(data: bytes) -> gemmi.Structure:
    if data.startswith(b"data_"):
        return gemmi.make_structure_from_block(gemmi.cif.read_string(data)[0])
    return gemmi.read_pdb_string(data)


def interleaved(contenders: list[Callable[[], object]], rounds: int) -> list[float]:
    """The median of each, in milliseconds."""
    taken: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        for place, contender in enumerate(contenders):
            start = time.perf_counter()
            contender()
            if number:
                taken[place].append(1000 * (time.perf_counter() - start))
    return [statistics.median(each) for each in taken]


def missed(sequences: list[bytes]) -> None:
    """Of the pairs that aligning all with all finds, as many as the seeds find, by how much the two share."""
    aligner = homology._Aligner(sequences, homology.IDENTITY)
    start = time.perf_counter()
    truth = [pair for pair in combinations(range(len(sequences)), 2) if aligner.akin(*pair)]
    all_pairs = time.perf_counter() - start
    start = time.perf_counter()
    found = {(a, b) for a, b in HOMOLOGY.pairs(sequences).tolist()}
    seeded = time.perf_counter() - start
    print(f"\n{len(sequences)} sequences: all pairs {all_pairs:.1f} s, by seeds {seeded:.1f} s")
    shares = np.array([shared(sequences[a], sequences[b]) for a, b in truth])
    there = np.array([pair in found for pair in truth])
    print("| equal residues | pairs | found |\n|---|---|---|")
    for low, high in ((0.3, 0.4), (0.4, 0.5), (0.5, 1.01), (0.3, 1.01)):
        chosen = (shares >= low) & (shares < high)
        print(f"| {low:.0%} to {min(high, 1):.0%} | {chosen.sum()} | {there[chosen].mean():.2%} |")
    whole = near_duplicates.clusters(len(sequences), np.array(truth))
    ours = near_duplicates.clusters(len(sequences), np.array(sorted(found)).reshape(-1, 2))
    beyond = len(found - set(truth))
    print(f"clusters: {whole.max() + 1} by all pairs, {ours.max() + 1} by seeds; pairs beyond the truth: {beyond}")


def shared(a: bytes, b: bytes) -> float:
    import parasail

    aligned = parasail.sw_stats_striped_sat(a.decode(), b.decode(), 11, 1, parasail.blosum62)
    return float(aligned.matches / aligned.length)


def many(sequences: list[bytes]) -> None:
    residues = sum(map(len, sequences))
    start, used = time.perf_counter(), time.process_time()
    pairs = HOMOLOGY.pairs(sequences)
    took, used = time.perf_counter() - start, time.process_time() - used
    clusters = near_duplicates.clusters(len(sequences), pairs)
    print(
        f"\n{len(sequences):,} sequences, {residues:,} residues: {took:.0f} s, {used:.0f} s of one core; "
        f"{len(pairs):,} pairs, {clusters.max() + 1:,} clusters of {-(-len(sequences) // FAMILY):,} families"
    )


def families(count: int, seed: int) -> list[bytes]:
    chance = np.random.default_rng(seed)
    made: set[bytes] = set()
    while len(made) < count:
        root = chance.choice(20, int(np.clip(chance.lognormal(np.log(LENGTH), 0.4), 40, 1200)), p=SHARES / SHARES.sum())
        made |= {relative(root, chance.uniform(0.35, 0.9) ** 0.5, chance) for _ in range(FAMILY)}
    return sorted(made)[:count]


def relative(root: npt.NDArray[np.int64], identity: float, chance: np.random.Generator) -> bytes:
    rates = chance.gamma(1.0, 1.0, len(root)) + 0.05  # some sites change, others hardly ever
    sites = chance.choice(len(root), round(len(root) * (1 - identity)), replace=False, p=rates / rates.sum())
    changed = root.copy()
    changed[sites] = chance.choice(20, len(sites), p=SHARES / SHARES.sum())
    letters = changed.tolist()
    for _ in range(chance.poisson((1 - identity) * len(root) / 40)):
        at, length = int(chance.integers(len(letters))), min(int(chance.geometric(0.35)), 12)
        lost, new = (length, []) if chance.random() < 0.5 else (0, chance.choice(20, length).tolist())
        letters[at : at + lost] = new
    return "".join(LETTERS[letters]).encode()


if __name__ == "__main__":
    main()
