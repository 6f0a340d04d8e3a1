"""The wording of the embedded task: openings, and what may follow them.

`[one|two]` is a choice made per problem; `{a}` is a drawn number or an earlier step's result; `{a_word}` is a drawn
fraction or multiple in words; `{calc}` is a step's annotated equation and `{cash}` the same in dollars.
"""

from __future__ import annotations

from adaspec_jax.data.word_problems.parts import FRACTIONS, TIMES, part

_HOW_MANY = "how many {things} does {name} have [now|altogether|in total|in all]?"
_HOW_MUCH = "how much money does {name} have [now|in total|at the end]?"

# Each ends with {name} owning {x} {things}.
COUNTS = (
    part(
        {"a": (6, 48), "k": TIMES},
        "{name} [picked|collected|found] {a} {things} on {day} and {k_word} as many on {day2}.",
        _HOW_MANY,
        ("b", "{k}*{a}", "[on {day2}, {name} got|on {day2} {he} had another|{he} got] {calc} {things} [|that day]."),
        ("x", "{a}+{b}", "[in total|altogether], [{name}|{he}] has {calc} {things}."),
    ),
    part(
        {"p": (3, 12), "q": (4, 20), "c": (2, 19)},
        "{name} has {p} [boxes|bags|jars|baskets] with {q} {things} in each [of them|one]. "
        "{he} also [has|finds|keeps] {c} loose {things}.",
        _HOW_MANY,
        ("b", "{p}*{q}", "[the full ones hold|packed away, {he} has|there are] {calc} {things} [|in them]."),
        ("x", "{b}+{c}", "[with the loose ones|adding the {c} loose ones], [that makes|{name} has] {calc} {things}."),
    ),
    part(
        {"a": (20, 120), "f": FRACTIONS, "c": (2, 15)},
        "{name} had {a} {things}. {he} [gave|sent] {f_word} of them to {friend} and [then lost|later lost] {c} more.",
        _HOW_MANY,
        ("b", "{a}/{f}", "[{friend} got|{name} gave {friend}|{he} gave away] {calc} {things}."),
        ("d", "{a}-{b}", "[{he} then had|that left {him} with|after that, {name} had] {calc} {things}."),
        ("x", "{d}-{c}", "[after losing {c}|without the lost ones], [{he}|{name}] has {calc} [left|{things} left]."),
    ),
    part(
        {"a": (5, 40), "c": (3, 20), "k": TIMES},
        "{friend} has {a} {things}. {name} had {c} more than {friend}, and then [bought|won|was given] "
        "{k_word} as many {things} as {friend} has.",
        _HOW_MANY,
        ("b", "{a}+{c}", "[at first|to begin with|before that], {name} had {calc} {things}."),
        ("d", "{k}*{a}", "[then {he} got|{he} got another|the new ones are] {calc} [|{things}]."),
        ("x", "{b}+{d}", "[so {name} has|that gives {him}|now {he} has] {calc} {things}."),
    ),
    part(
        {"q": (6, 30), "n": (2, 9), "c": (2, 18)},
        "{name} [makes|prepares|finishes] {q} {things} [every|each] day for {n} days, "
        "but {c} of them [are ruined|get lost|are spoiled].",
        "how many good {things} does {name} have [|at the end]?",
        ("b", "{q}*{n}", "[in {n} days|over {n} days], {name} makes {calc} {things}."),
        ("x", "{b}-{c}", "[of these|taking away the {c} bad ones], {he} has {calc} good {things}."),
    ),
    part(
        {"a": (20, 150), "f": FRACTIONS, "c": (3, 25)},
        "a [shop|store|market stall] had {a} {things}. {name} bought {f_word} of them in the morning and "
        "{c} more in the [afternoon|evening].",
        _HOW_MANY,
        ("b", "{a}/{f}", "in the morning, [{name}|{he}] bought {calc} {things}."),
        ("x", "{b}+{c}", "[in total|with the other {c}], {he} bought {calc} {things}."),
    ),
    part(
        {"a": (12, 90), "f": FRACTIONS, "c": (2, 20)},
        "{name} found {a} {things}. {friend} found {f_word} as many as {name}, and {third} found {c} more than "
        "{friend}. they [put them all in {name}'s bag|gave everything to {name}].",
        _HOW_MANY,
        ("b", "{a}/{f}", "{friend} found {calc} {things}."),
        ("d", "{b}+{c}", "{third} found {calc} [|{things}]."),
        ("x", "{a}+{b}+{d}", "[together they found|so {name} has|all together that is] {calc} {things}."),
    ),
)

# Each ends with {name} owning {x} dollars.
MONEY = (
    part(
        {"q": (6, 25), "n": (2, 8), "m": (2, 8)},
        "{name} earns ${q} an hour [babysitting|mowing lawns|tutoring|washing cars]. "
        "{he} worked {n} hours on {day} and {m} hours on {day2}.",
        "how much [did {name} earn|money did {name} make]?",
        ("b", "{n}+{m}", "[in total|over the two days], {name} worked {calc} hours."),
        ("x", "{b}*{q}", "[so {he} earned|{he} was paid|for that {he} earned] {cash}."),
    ),
    part(
        {"p": (3, 20), "q": (2, 9), "r": (3, 15), "s": (2, 9)},
        "{name} sold {p} {things} for ${q} each and {r} {things2} for ${s} each.",
        "how much [money did {name} make|did {name} get] [|in total|altogether]?",
        ("b", "{p}*{q}", "[for the {things}, {name} got|the {things} brought in|{he} sold the {things} for] {cash}."),
        ("d", "{r}*{s}", "[for the {things2}, {he} got|the {things2} brought in|{he} sold the {things2} for] {cash}."),
        ("x", "{b}+{d}", "[in total|altogether|together], {he} made {cash}."),
    ),
    part(
        {"q": (4, 25), "n": (3, 12), "k": TIMES},
        "{name} saved ${q} [every|each] week for {n} weeks. then {his} [uncle|aunt|grandmother|father] gave {him} "
        "{k_word} as much as {he} had saved.",
        _HOW_MUCH,
        ("b", "{q}*{n}", "[{name}|{he}] saved {cash} [|by {him}self|in {n} weeks]."),
        ("d", "{k}*{b}", "[then {he} was given|the gift was|{he} was given another] {cash}."),
        ("x", "{b}+{d}", "[so {he} has|that makes|now {name} has] {cash}."),
    ),
    part(
        {"a": (50, 200, 5), "p": (3, 12), "q": (2, 12)},
        "{name} had ${a}. {he} bought {p} {things} that cost ${q} each.",
        "how much money does {name} have left?",
        ("b", "{p}*{q}", "the {things} cost [{name}|{him}] {cash}."),
        ("x", "{a}-{b}", "[so {he} has|that leaves|{name} is left with] {cash} [|left]."),
    ),
    part(
        {"q": (3, 15), "n": (4, 16), "c": (5, 60, 5)},
        "{name} [cleans tables at a restaurant|walks dogs|delivers parcels] and gets ${q} for each one. "
        "[today|on {day}] {he} did {n} of them and got ${c} in tips.",
        "how much did {name} earn [|that day|in all]?",
        ("b", "{q}*{n}", "[for the work|without tips], {name} got {cash}."),
        ("x", "{b}+{c}", "[with the tips|adding the tips], {he} earned {cash}."),
    ),
    part(
        {"a": (60, 600, 10), "f": FRACTIONS, "c": (5, 90, 5)},
        "{name} has a budget of ${a}. {he} spends {f_word} of it on [food|rent|clothes] and ${c} "
        "on [gifts|books|bus rides].",
        "how much money [is|does {name} have] left?",
        ("b", "{a}/{f}", "[first {he} spends|{name} spends|the first part costs] {cash}."),
        ("d", "{b}+{c}", "[in total {he} spends|all {his} spending is|adding the ${c}, {he} spends] {cash}."),
        ("x", "{a}-{d}", "[so there is|that leaves|{name} has] {cash} [|left]."),
    ),
    part(
        {"a": (40, 400, 20), "t": (10, 50, 5)},
        "{name} [sells|is selling] {his} [old bike|guitar|camera|desk]. the price was ${a}, but {friend} gets it with "
        "a {t}% discount.",
        "how much does {friend} pay {name}?",
        ("b", "{a}*{t}/100", "[the discount is|{friend} saves|{name} takes off] {cash}."),
        ("x", "{a}-{b}", "[so {friend} pays|{name} gets|the new price is] {cash}."),
    ),
)

# Stories with a question of their own; nothing follows them.
WHOLE = (
    part(
        {"a": (80, 400, 10), "p": (8, 40), "k": TIMES, "f": FRACTIONS},
        "{name} is reading a book of {a} pages. yesterday {he} read {p} pages and today {he} read {k_word} as many.",
        "if {he} wants to read {f_word} of the [remaining|other] pages tomorrow, how many pages will {he} read?",
        ("b", "{p}*{k}", "[today {name} read|{name} read|today {he} read] {calc} pages [|today]."),
        ("c", "{p}+{b}", "[so far {he} has read|since yesterday, that is] {calc} pages."),
        ("d", "{a}-{c}", "[there are {calc} pages left|{he} has {calc} pages left|{d} pages are left because {calc}]."),
        ("x", "{d}/{f}", "[tomorrow {he} should read|so {he} will read] {calc} pages."),
    ),
    part(
        {"q": (10, 60, 5), "n": (2, 6), "m": (5, 60, 5), "h": (2, 6)},
        "{name} [drives|rides] at {q} miles per hour for {n} hours and then goes {m} miles more.",
        "if the [way|trip] back takes {h} hours, what is {his} speed on the way back [|in miles per hour]?",
        ("b", "{q}*{n}", "[in {n} hours {name} goes|first {he} goes|the first part is] {calc} miles."),
        ("c", "{b}+{m}", "[one way is|the whole way is|in total {he} goes] {calc} miles."),
        ("x", "{c}/{h}", "[on the way back|going back], {his} speed is {calc} miles per hour."),
    ),
    part(
        {"a": (4, 18), "k": TIMES, "c": (2, 12), "n": (2, 15)},
        "{name} is {a} years old. {friend} is {k_word} as old as {name}, and {third} is {c} years "
        "younger than {friend}.",
        "how old will {third} be in {n} years?",
        ("b", "{a}*{k}", "{friend} is {calc} years old."),
        ("d", "{b}-{c}", "[{third} is {calc} years old|so {third} is now {calc}]."),
        ("x", "{d}+{n}", "in {n} years, {third} will be {calc} [years old|]."),
    ),
    part(
        {"p": (2, 6), "q": (2, 6), "n": (2, 5), "w": (3, 12)},
        "{name} writes a letter of {p} pages to [each of|] {q} [different|] friends {n} times a week.",
        "how many pages does {name} write in {w} weeks?",
        ("b", "{p}*{q}", "[each time|every time], {he} writes {calc} pages."),
        ("c", "{b}*{n}", "[in a week that is|so {he} writes] {calc} pages [|every week]."),
        ("x", "{c}*{w}", "[in {w} weeks|that means in {w} weeks], {he} writes {calc} pages."),
    ),
    part(
        {"a": (18, 90), "f": FRACTIONS, "c": (2, 9)},
        "there are {a} students in {name}'s [class|choir|club], and {f_word} of them are girls. [today|on {day}], "
        "{c} boys [were ill|stayed at home|did not come].",
        "how many boys [came|were there]?",
        ("b", "{a}/{f}", "[there are {calc} girls|the number of girls is {calc}|{b} are girls because {calc}]."),
        ("d", "{a}-{b}", "[so there are|that leaves|the others are] {calc} boys."),
        ("x", "{d}-{c}", "[without the {c} others|with {c} away], {calc} boys [came|were there]."),
    ),
    part(
        {"p": (2, 7), "q": (2, 5), "n": (3, 12), "c": (2, 14)},
        "one [batch of cookies|cake|loaf of bread] takes {p} cups of flour and {q} cups of [sugar|milk|oats]. "
        "{name} bakes {n} [of them|] and has {c} cups [left over|left].",
        "how many cups did {name} have [at the start|before that]?",
        ("b", "{p}+{q}", "[one takes|for each one {he} uses|each takes] {calc} cups."),
        ("d", "{b}*{n}", "[for {n}, {name} used|{name} used|all {n} take] {calc} cups."),
        ("x", "{d}+{c}", "[so at the start {he} had|before that {he} had] {calc} cups."),
    ),
    part(
        {"a": (20, 80), "b": (3, 18), "c": (3, 18), "f": FRACTIONS},
        "a [bus|train|boat] left with {a} [passengers|people]. at the first stop {b} got off and {c} got on. "
        "at the second stop {f_word} of them got off.",
        "how many were [left|still on it]?",
        ("d", "{a}-{b}", "[after {b} got off|at the first stop], there were {calc} [people|] left."),
        ("e", "{d}+{c}", "[then {c} got on, so there were|with the new ones there were] {calc}."),
        ("g", "{e}/{f}", "at the second stop {calc} got off."),
        ("x", "{e}-{g}", "[so|that means] {calc} were [left|still on it]."),
    ),
    part(
        {"a": (6, 40), "f": FRACTIONS, "p": (2, 5), "q": (2, 9)},
        "a ticket for a [film|concert|zoo|museum] costs ${a} for an adult and {f_word} of that for a child. "
        "{name} buys {p} tickets for adults and {q} for children.",
        "how much does {he} pay [|in total|altogether]?",
        ("b", "{a}/{f}", "a ticket for a child costs {cash}."),
        ("c", "{p}*{a}", "[the adults|{p} adults] cost {cash}."),
        ("d", "{q}*{b}", "[the children|{q} children] cost {cash}."),
        ("x", "{c}+{d}", "[in total|altogether], {name} pays {cash}."),
    ),
)

AFTER_COUNTS = (
    part(
        {"i": FRACTIONS},
        "[then|later|the next day] {he} gives {i_word} of {his} {things} to {other}.",
        "how many {things} does {name} have left?",
        ("y", "{x}/{i}", "[{other} gets|{he} gives {other}|{name} then gives away] {calc} {things}."),
        ("z", "{x}-{y}", "[so {he} has|that leaves {him}|{name} is left with] {calc} [|{things}]."),
    ),
    part(
        {"i": (2, 9)},
        "{he} shares all {his} {things} equally [among|with] {i} [friends|cousins|neighbours].",
        "how many {things} does each [of them|one] get?",
        ("z", "{x}/{i}", "[each one gets|so everyone gets|each of them gets] {calc} {things}."),
    ),
    part(
        {"i": (2, 8)},
        "{he} [sells|sold] all of {his} {things} for ${i} each.",
        "how much money does {name} [get|make]?",
        ("z", "{x}*{i}", "[so {he} makes|{name} gets|selling them brings] {cash}."),
    ),
    part(
        {"i": (3, 12)},
        "{he} [packs|puts] all {his} {things} in [bags|boxes] of {i}.",
        "how many does {he} fill?",
        ("z", "{x}/{i}", "[so {he} fills|{name} fills|that takes] {calc} of them."),
    ),
    part(
        {"i": (60, 300, 10)},
        "for [a party|the school fair|{his} family] {he} needs {i} {things}.",
        "how many more {things} does {name} need?",
        ("z", "{i}-{x}", "[so {he} needs|{name} still needs|that means {he} needs] {calc} more."),
    ),
    part(
        {"i": (2, 12), "j": (2, 6)},
        "{he} keeps {i} [of the {things}|of them] and sells the [rest|others] for ${j} each.",
        "how much does {name} [earn|make] [|from that]?",
        ("y", "{x}-{i}", "[{he} sells|after keeping {i}, {he} sells|without these, that is] {calc} {things}."),
        ("z", "{y}*{j}", "[for these {he} gets|so {he} makes] {cash}."),
    ),
)

AFTER_MONEY = (
    part(
        {"i": FRACTIONS},
        "{name} [then|later] spends {i_word} of {his} money [from this|] on [a gift|books|shoes|a game].",
        "how much of it [is left|does {he} have left]?",
        ("y", "{x}/{i}", "[{name} spends|{he} spends|that costs {him}] {cash}."),
        ("z", "{x}-{y}", "[so {he} has|that leaves|{name} keeps] {cash} [|left]."),
    ),
    part(
        {"i": (100, 900, 10)},
        "with this money {name} wants to buy a [phone|bike|tent|coat] that costs ${i}.",
        "how much more [money|] does {he} need?",
        ("z", "{i}-{x}", "[so {he} needs|{name} still needs|that means {he} needs] {cash} more."),
    ),
    part(
        {"i": (2, 8)},
        "{name} [then|] shares [this|the] money equally among {i} [people|cousins|children].",
        "how much does each [one|of them] get?",
        ("z", "{x}/{i}", "[each gets|so everyone gets|each of them gets] {cash}."),
    ),
    part(
        {"i": (2, 9), "j": (2, 15)},
        "with it {name} buys {i} [toys|cups|pens|plants] for ${j} each.",
        "how much [is left|of it is left|does {he} have left]?",
        ("y", "{i}*{j}", "[these cost|for these {he} pays|{name} spends] {cash}."),
        ("z", "{x}-{y}", "[so {he} has|that leaves|then there is] {cash} [|left]."),
    ),
    part(
        {"i": (2, 12)},
        "{name} uses all of it for [tickets|lunches|lamps|lessons] at ${i} each.",
        "how many can {he} buy?",
        ("z", "{x}/{i}", "[so {he} can buy|{name} can buy|that is enough for] {calc} [|of them]."),
    ),
)
