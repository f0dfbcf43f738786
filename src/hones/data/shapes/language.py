"""What can be said of a scene: true and false statements, their captions, and questions with one answer."""

import random
from dataclasses import dataclass

from hones.data.shapes.scene import COLOURS, SHAPES, Content, Thing, make_scene

RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Statement:
    """What a caption claims: some objects (colour, shape) and perhaps a relation between the first two."""

    things: tuple[tuple[str, str], ...]
    relation: str | None = None


def holds(statement: Statement, scene: Content) -> bool:
    """Whether the statement is true of the scene: distinct objects of those looks exist, in that relation."""

    def match(chosen: tuple[Thing, ...]) -> bool:
        if len(chosen) == len(statement.things):
            return statement.relation is None or related(chosen[0], statement.relation, chosen[1])
        colour, shape = statement.things[len(chosen)]
        rest = (t for t in scene.things if t not in chosen and (t.colour, t.shape) == (colour, shape))
        return any(match((*chosen, thing)) for thing in rest)

    return match(())


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether a is `relation` b, by grid cells: "left of" compares columns, "above" compares rows."""
    return {
        "left of": a.column < b.column,
        "right of": a.column > b.column,
        "above": a.row < b.row,
        "below": a.row > b.row,
    }[relation]


def describe(scene: Content, rng: random.Random) -> Statement:
    """A true statement that names every object; two objects are put in relation."""
    things = tuple((t.colour, t.shape) for t in scene.things)
    if len(things) != 2:
        return Statement(things)
    true = [r for r in RELATIONS if related(scene.things[0], r, scene.things[1])]
    return Statement(things, rng.choice(true))


def captions(statement: Statement, place: str = "above") -> list[str]:
    """Five paraphrases of a statement; the first two carry the relation if there is one.

    place: where the objects are, seen from the label: "above" or "below".
    """
    names = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}" for colour, shape in statement.things]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    first = f"{names[0]} {statement.relation} {names[1]}" if statement.relation else listed
    return [
        f"{first}",
        f"the image shows {first}",
        f"a picture of {listed}",
        f"there is {listed}",
        f"{listed} {place} a sign",
    ]


def perturb(statement: Statement, rng: random.Random) -> Statement:
    """Change one attribute, a binding or the relation. The result may by chance still be true: check with `holds`."""
    things = [list(t) for t in statement.things]
    kinds = ["colour", "shape"]
    kinds += ["binding"] if len(things) > 1 else []
    kinds += ["relation"] * 2 if statement.relation else []
    kind = rng.choice(kinds)
    i = rng.randrange(len(things))
    relation = statement.relation
    if kind == "colour":
        things[i][0] = rng.choice([c for c in COLOURS if c != things[i][0]])
    elif kind == "shape":
        things[i][1] = rng.choice([s for s in SHAPES if s != things[i][1]])
    elif kind == "binding":
        j = rng.choice([j for j in range(len(things)) if j != i])
        things[i][0], things[j][0] = things[j][0], things[i][0]
    elif relation is not None:
        relation = RELATIONS[relation]
    return Statement(tuple((c, s) for c, s in things), relation)


def false_statement(scene: Content, rng: random.Random, *, hard: bool) -> Statement:
    """A statement that is false of the scene: a perturbed description (hard) or the description of another scene."""
    while True:
        if hard:
            statement = perturb(describe(scene, rng), rng)
        else:
            statement = describe(make_scene(f"other/{rng.getrandbits(48)}"), rng)
        if not holds(statement, scene):
            return statement


def existence(scene: Content, rng: random.Random) -> dict[str, str]:
    """An object to ask about, present in half of the scenes; an absent one mostly shares its colour or shape with one
    that is there, as the adversarial half of POPE's objects is chosen.
    """
    present = {(t.colour, t.shape) for t in scene.things}
    if rng.random() < 0.5:
        colour, shape = rng.choice(sorted(present))
        return {"object": f"{colour} {shape}", "answer": "yes"}
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in present]
    alike = [(c, s) for c, s in absent if any(c == colour or s == shape for colour, shape in present)]
    colour, shape = rng.choice(alike if rng.random() < 0.7 else absent)
    return {"object": f"{colour} {shape}", "answer": "no"}


def questions(scene: Content, rng: random.Random) -> list[tuple[str, str, str]]:
    """One (kind, question, answer) for each kind that the scene allows: its answer is unambiguous."""
    things = scene.things
    made: list[tuple[str, str, str]] = []
    shapes = [t for t in things if sum(o.shape == t.shape for o in things) == 1]
    colours = [t for t in things if sum(o.colour == t.colour for o in things) == 1]
    if shapes:
        thing = rng.choice(shapes)
        made.append(("colour", f"What colour is the {thing.shape}?", thing.colour))
    if colours:
        thing = rng.choice(colours)
        made.append(("shape", f"What shape is the {thing.colour} object?", thing.shape))
    if rng.random() < 0.5:
        made.append(("count", "How many objects are there?", str(len(things))))
    else:
        colour = rng.choice([t.colour for t in things] + [rng.choice(list(COLOURS))])
        made.append(("count", f"How many {colour} objects are there?", str(sum(t.colour == colour for t in things))))
    if rng.random() < 0.5:
        made.append(("existence", f"Is there a {rng.choice(things).name}?", "yes"))
    else:
        (colour, shape) = false_statement(scene, rng, hard=rng.random() < 0.7).things[0]
        present = any((t.colour, t.shape) == (colour, shape) for t in things)
        made.append(("existence", f"Is there a {colour} {shape}?", "yes" if present else "no"))
    relations = [
        (a, relation, b)
        for b in shapes
        for relation in RELATIONS
        for a in things
        if a is not b and related(a, relation, b) and sum(related(o, relation, b) for o in things if o is not b) == 1
    ]
    if relations:
        a, relation, b = rng.choice(relations)
        made.append(("relation", f"Which shape is {relation} the {b.shape}?", a.shape))
    return made
