"""Write `envs_data/science/tasks.jsonl`: physics, chemistry, biology, multiple choice.

python -m envs_data.prepare.science_tasks && python -m envs_data.prepare.manifest

Every family has four questions, two for each split. Answers are computed, and the wrong
options are what typical mistakes give.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "science"
LETTERS = "ABCD"
"""Of the options of a question."""
NUM_QUESTIONS = 4
"""Of each family."""

Question = tuple[str, str, list[str]]
"""The text, the right option, and three wrong ones."""


@dataclass(frozen=True)
class Family:
    """Questions of one subject.

    Args:
        name: In the ids of its tasks.
        cases: What tells one question from the others.
        ask: Makes a question of a case.
        notes: What the terms mean.
        hint: A first step.
    """

    name: str
    cases: tuple[Any, ...]
    ask: Callable[..., Question]
    notes: dict[str, str]
    hint: str


def amount(value: Fraction | float, unit: str = "") -> str:
    """Write a quantity with at most four decimals."""
    text = f"{float(value):.4f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


def with_unit(unit: str, right: Any, *wrong: Any) -> tuple[str, list[str]]:
    """Write the right quantity, and the wrong ones."""
    return amount(right, unit), [amount(value, unit) for value in wrong]


def kinetic_energy(m: int, v: int) -> Question:
    text = f"A body of mass {m} kg moves at {v} m/s. What is its kinetic energy?"
    return text, *with_unit(
        "J", Fraction(m * v * v, 2), m * v * v, m * v, Fraction(m * v, 2)
    )


def power(u: int, r: int) -> Question:
    text = f"A resistor of {r} Ω is connected to {u} V. What power does it take up?"
    return text, *with_unit("W", Fraction(u * u, r), Fraction(u, r), u * r, u * u * r)


def free_fall(t: int, height: int) -> Question:
    text = (
        f"A stone is dropped from a tower of {height} m. How far has it fallen after {t} s? Take g = 10 m/s² and "
        "neglect the air."
    )
    return text, *with_unit("m", 5 * t * t, 10 * t * t, 10 * t, height - 5 * t * t)


def wave(f: int, length: Fraction) -> Question:
    text = f"A wave has a frequency of {f} Hz and a wavelength of {amount(length, 'm')}. How fast does it travel?"
    return text, *with_unit("m/s", f * length, f / length, length / f, f + length)


def density(m: int, v: int) -> Question:
    text = f"A block has a mass of {m} g and a volume of {v} cm³. What is its density?"
    return text, *with_unit("g/cm³", Fraction(m, v), Fraction(v, m), m * v, m + v)


def parallel(a: int, b: int) -> Question:
    text = f"Two resistors of {a} Ω and {b} Ω are connected in parallel. What is their equivalent resistance?"
    return text, *with_unit(
        "Ω", Fraction(a * b, a + b), a + b, Fraction(a + b, 2), Fraction(a + b, a * b)
    )


def collision(m1: int, v1: int, m2: int) -> Question:
    text = (
        f"A cart of {m1} kg at {v1} m/s runs into a cart of {m2} kg at rest, and they stay together. What is their "
        "common speed?"
    )
    energy = (Fraction(m1 * v1 * v1, m1 + m2)) ** 0.5
    return text, *with_unit(
        "m/s", Fraction(m1 * v1, m1 + m2), v1, Fraction(m1 * v1, m2), energy
    )


def heat(m: int, low: int, high: int) -> Question:
    text = (
        f"How much heat brings {m} kg of water from {low} °C to {high} °C? Water has a specific heat capacity of "
        "4.2 kJ/(kg·K)."
    )
    c = Fraction(42, 10)
    return text, *with_unit(
        "kJ", m * c * (high - low), m * c * high, c * (high - low), m * (high - low)
    )


def moles(compound: str, molar: Fraction, light: Fraction, n: Fraction) -> Question:
    text = f"How many moles are {amount(molar * n, 'g')} of {compound} (molar mass {amount(molar, 'g/mol')})?"
    return text, *with_unit("mol", n, molar * molar * n, 1 / n, molar * n / light)


def ph(kind: str, exponent: int) -> Question:
    text = f"What is the pH of a solution of a strong {kind} with one {'H⁺' if kind == 'acid' else 'OH⁻'} per formula, of concentration 10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[exponent]} mol/L, at 25 °C?"
    right = exponent if kind == "acid" else 14 - exponent
    return text, *with_unit("", right, 14 - right, -exponent, right - 1)


def dilution(c: Fraction, v1: int, v2: int) -> Question:
    text = (
        f"Water is added to {v1} mL of a solution of {amount(c, 'mol/L')} until there are {v2} mL. What is the "
        "concentration now?"
    )
    return text, *with_unit(
        "mol/L", c * v1 / v2, c * v2 / v1, c * v1 / (v1 + v2), c * v1 / (v2 - v1)
    )


def ion(symbol: str, name: str, z: int, a: int, charge: int) -> Question:
    sign = "+" if charge > 0 else "−"
    text = f"How many electrons has the ion {symbol} with the charge {abs(charge)}{sign}, of atomic number {z} and mass number {a}?"
    return text, *with_unit("", z - charge, z, z + charge, a - z)


def warming(v: int, t1: int, t2: int) -> Question:
    text = f"A gas takes up {v} L at {t1} °C. What is its volume at {t2} °C and the same pressure? Take 0 °C as 273 K."
    warm, cold = t2 + 273, t1 + 273
    return text, *with_unit(
        "L",
        Fraction(v * warm, cold),
        Fraction(v * t2, t1),
        Fraction(v * cold, warm),
        v + t2 - t1,
    )


def transcription(template: str) -> Question:
    text = (
        f"A template strand of DNA reads 3'-{template}-5'. Which mRNA is made from it?"
    )
    paired = template.translate(str.maketrans("ACGT", "UGCA"))
    wrong = [paired.replace("U", "T"), template.replace("T", "U"), paired[::-1]]
    return text, f"5'-{paired}-3'", [f"5'-{strand}-3'" for strand in wrong]


def cross(
    first: str, second: str, wanted: str, right: str, wrong: tuple[str, ...]
) -> Question:
    text = (
        f"Two plants with the genotypes {first} and {second} are crossed; capital letters are dominant, genes assort "
        f"independently. What share of the offspring is expected to {wanted}?"
    )
    return text, right, list(wrong)


def growth(n: int, minutes: int, hours: int) -> Question:
    text = f"A culture of {n} bacteria doubles every {minutes} minutes. How many are there after {hours} hours?"
    times = hours * 60 // minutes
    return text, *with_unit("", n * 2**times, n * 2 * times, n * 2**hours, n * times**2)


def coding(n: int) -> Question:
    text = f"A protein is made of {n} amino acids. How many nucleotides has its reading frame, the stop codon included?"
    return text, *with_unit("", 3 * n + 3, 3 * n, n + 1, 6 * n + 6)


def magnification(image_mm: int, real_um: int) -> Question:
    text = f"A cell of {real_um} µm measures {image_mm} mm on a drawing. What is the magnification?"
    times = Fraction(image_mm * 1000, real_um)
    options = with_unit(
        "", times, Fraction(image_mm, real_um), times / 10, image_mm * real_um
    )
    return text, f"{options[0]}×", [f"{value}×" for value in options[1]]


def fact(text: str, right: str, *wrong: str) -> Question:
    return text, right, list(wrong)


FAMILIES = (
    Family(
        "kinetic-energy",
        ((2, 3), (4, 5), (6, 10), (8, 7)),
        kinetic_energy,
        {"kinetic energy": "half the mass times the square of the speed"},
        "Square the speed before anything else.",
    ),
    Family(
        "power",
        ((12, 6), (10, 5), (24, 8), (230, 46)),
        power,
        {
            "power": "voltage times current; in a resistor the current is the voltage divided by the resistance"
        },
        "Find the current from the voltage and the resistance.",
    ),
    Family(
        "free-fall",
        ((3, 100), (4, 150), (5, 200), (6, 250)),
        free_fall,
        {
            "free fall": "the distance fallen from rest is half of g times the square of the time"
        },
        "The speed grows evenly from zero, so use the mean speed.",
    ),
    Family(
        "wave",
        (
            (50, Fraction(4)),
            (20, Fraction(5, 2)),
            (400, Fraction(4, 5)),
            (170, Fraction(2)),
        ),
        wave,
        {
            "wavelength": "the distance a wave travels in one period",
            "frequency": "periods in a second",
        },
        "Ask how many wavelengths pass in one second.",
    ),
    Family(
        "density",
        ((54, 20), (79, 10), (45, 50), (113, 10)),
        density,
        {"density": "mass divided by volume"},
        "The unit g/cm³ says what is divided by what.",
    ),
    Family(
        "parallel",
        ((3, 6), (4, 12), (10, 15), (20, 30)),
        parallel,
        {
            "parallel": "the reciprocal of the equivalent resistance is the sum of the reciprocals of the resistances"
        },
        "Add the reciprocals; the result is below the smaller resistance.",
    ),
    Family(
        "collision",
        ((2, 6, 1), (3, 8, 5), (4, 10, 6), (1, 12, 3)),
        collision,
        {"momentum": "mass times velocity; its total does not change in a collision"},
        "Write the momentum before the collision; energy is lost, so do not use it.",
    ),
    Family(
        "heat",
        ((2, 20, 30), (3, 15, 35), (5, 10, 60), (4, 25, 75)),
        heat,
        {"specific heat capacity": "the heat that warms one kilogram by one kelvin"},
        "Find the difference of the temperatures.",
    ),
    Family(
        "moles",
        (
            ("water, H₂O", Fraction(18), Fraction(17), Fraction(5, 2)),
            ("carbon dioxide, CO₂", Fraction(44), Fraction(28), Fraction(1, 2)),
            ("sodium chloride, NaCl", Fraction(117, 2), Fraction(23), Fraction(2)),
            ("calcium carbonate, CaCO₃", Fraction(100), Fraction(68), Fraction(1, 4)),
        ),
        moles,
        {
            "molar mass": "the mass of one mole of a substance",
            "mole": "the amount of substance of 6.022 × 10²³ particles",
        },
        "Compare the given mass with the mass of one mole.",
    ),
    Family(
        "ph",
        (("acid", 3), ("base", 4), ("base", 2), ("acid", 5)),
        ph,
        {
            "pH": "the negative decimal logarithm of the concentration of H⁺ in mol/L; pH and pOH add up to 14 at 25 °C"
        },
        "Find the concentration of H⁺, for a base by way of OH⁻.",
    ),
    Family(
        "dilution",
        (
            (Fraction(2), 50, 200),
            (Fraction(1), 20, 100),
            (Fraction(6), 25, 150),
            (Fraction(4, 5), 100, 400),
        ),
        dilution,
        {
            "dilution": "the amount of dissolved substance, concentration times volume, stays the same"
        },
        "Find the amount of dissolved substance first.",
    ),
    Family(
        "ion",
        (
            ("K", "potassium", 19, 41, 1),
            ("Mg", "magnesium", 12, 25, 2),
            ("Br", "bromine", 35, 81, -1),
            ("Fe", "iron", 26, 56, 3),
        ),
        ion,
        {
            "atomic number": "the number of protons",
            "mass number": "protons and neutrons together",
            "ion": "an atom with fewer (positive) or more (negative) electrons than protons",
        },
        "A neutral atom has as many electrons as protons; then see what the charge says.",
    ),
    Family(
        "warming",
        ((6, 27, 127), (10, 77, 147), (12, 7, 77), (9, 17, 307)),
        warming,
        {
            "Charles's law": "at constant pressure the volume of a gas is proportional to its absolute temperature, in kelvin"
        },
        "Turn both temperatures into kelvin.",
    ),
    Family(
        "transcription",
        (("TACGGA",), ("CATTGC",), ("GGATCA",), ("ATTCGT",)),
        transcription,
        {
            "transcription": "RNA is made along the template strand with paired bases: A with U, T with A, G with C, C with G"
        },
        "Pair base by base; RNA has no thymine.",
    ),
    Family(
        "cross",
        (
            ("Aa", "Aa", "show the recessive trait", "1/4", ("1/2", "3/4", "0")),
            ("Aa", "aa", "show the dominant trait", "1/2", ("3/4", "1/4", "1")),
            (
                "AaBb",
                "AaBb",
                "show both recessive traits",
                "1/16",
                ("1/4", "3/16", "9/16"),
            ),
            (
                "AaBb",
                "aabb",
                "show both dominant traits",
                "1/4",
                ("9/16", "1/2", "1/16"),
            ),
        ),
        cross,
        {
            "recessive": "a trait that shows only when both alleles are of its kind",
            "dominant": "a trait that shows when at least one allele is of its kind",
            "genotype": "the pair of alleles at a gene",
        },
        "List the kinds of gametes of each plant and how often each occurs.",
    ),
    Family(
        "growth",
        ((100, 20, 2), (50, 30, 3), (200, 20, 3), (10, 40, 4)),
        growth,
        {"doubling time": "the time in which a population grows to twice its size"},
        "Count how many doublings fit into the time.",
    ),
    Family(
        "coding",
        ((100,), (150,), (240,), (333,)),
        coding,
        {
            "codon": "three nucleotides that stand for one amino acid, or for the end",
            "stop codon": "the last codon of a reading frame; it stands for no amino acid",
        },
        "Count the codons, the last one included.",
    ),
    Family(
        "magnification",
        ((40, 20), (60, 50), (27, 15), (90, 75)),
        magnification,
        {
            "magnification": "the size in the image divided by the real size, both in the same unit"
        },
        "Write both sizes in micrometres.",
    ),
    Family(
        "organelle",
        (
            (
                "Where in an animal cell does the citric acid cycle run?",
                "Mitochondrion",
                "Nucleus",
                "Golgi apparatus",
                "Lysosome",
            ),
            (
                "Where in a cell are messenger RNAs translated into proteins?",
                "Ribosome",
                "Nucleolus",
                "Peroxisome",
                "Centriole",
            ),
            (
                "Where in a plant cell does the Calvin cycle run?",
                "Chloroplast",
                "Vacuole",
                "Mitochondrion",
                "Cell wall",
            ),
            (
                "Which part of an animal cell digests worn-out organelles?",
                "Lysosome",
                "Ribosome",
                "Smooth endoplasmic reticulum",
                "Centriole",
            ),
        ),
        fact,
        {
            "citric acid cycle": "a part of cellular respiration, which supplies most of the ATP of a cell",
            "translated": "translation joins amino acids in the order of the codons, by particles of RNA and protein",
            "Calvin cycle": "the part of photosynthesis that binds carbon dioxide",
            "digests": "digestion within a cell needs acid, and so a room of its own behind a membrane",
        },
        "Say first which large process this belongs to.",
    ),
    Family(
        "unit",
        (
            (
                "Which unit equals one joule per second?",
                "Watt",
                "Newton",
                "Pascal",
                "Volt",
            ),
            (
                "Which unit equals one newton per square metre?",
                "Pascal",
                "Joule",
                "Watt",
                "Tesla",
            ),
            (
                "Which unit equals one coulomb per second?",
                "Ampere",
                "Volt",
                "Farad",
                "Ohm",
            ),
            (
                "Which unit equals one joule per coulomb?",
                "Volt",
                "Ampere",
                "Weber",
                "Watt",
            ),
        ),
        fact,
        {
            "joule per second": "energy divided by time, which is power",
            "newton per square metre": "force divided by area, which is pressure",
            "coulomb per second": "charge divided by time, which is electric current",
            "joule per coulomb": "energy divided by charge, which is electric potential",
        },
        "Name the quantity that the quotient describes.",
    ),
)


def rows() -> list[dict[str, Any]]:
    """Return all rows, subject by subject in turn.

    In each split every letter is right equally often, so that none is a good guess.
    """
    rows: list[dict[str, Any]] = []
    for number in range(NUM_QUESTIONS):
        letters = [LETTERS[place % len(LETTERS)] for place in range(len(FAMILIES))]
        # Keyed by what they are for: a new family changes no other's draws.
        random.Random(f"letters-{number}").shuffle(letters)
        for family, letter in zip(FAMILIES, letters, strict=True):
            rows.append(_row(family, number, letter))
    return rows


def _row(family: Family, number: int, letter: str) -> dict[str, Any]:
    """Return the row of a question whose right option has the given letter."""
    text, right, choices = family.ask(*family.cases[number])
    random.Random(text).shuffle(choices)
    choices.insert(LETTERS.index(letter), right)
    # Two typical mistakes may give the same number, which would be two right letters.
    assert len(set(choices)) == len(LETTERS), choices
    options = "\n".join(
        f"{name}) {choice}" for name, choice in zip(LETTERS, choices, strict=True)
    )
    prompt = (
        f"{text}\n\n{options}\n\nGive the letter of the right option in \\boxed{{}}."
    )
    return {
        "id": f"science-{family.name}-{number}",
        "prompt": prompt,
        "answer": letter,
        "kind": "choice",
        "choices": choices,
        "meta": {"notes": family.notes, "hint": family.hint},
        "source": "aipo-science",
        "licence": "Apache-2.0",
        "split": "test" if number % 2 else "train",
    }


def main() -> None:
    """Write the file."""
    FOLDER.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    (FOLDER / "tasks.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
