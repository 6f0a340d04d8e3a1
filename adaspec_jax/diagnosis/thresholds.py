"""Where a number becomes a cause. Set on the runs of the set "tune" of `tests/diagnosis`, and on nothing else.

`python -m tests.diagnosis.planted --set tune` shows those runs' numbers; docs/diagnose.md has what they rest on.
"""

LEAST_COST = 0.02  # of acceptance: what costs less is no cause of a low one
HIGH = 0.85  # acceptance from which capacity is no complaint, whatever it still costs
WIDE = 0.06  # half of the interval: beyond it too few prompts were measured

UNREAD = 0.2  # agreement: a draft that reads the target's tokens at all has more
TEMPLATE_LACKING = 0.05  # of the served prompts lack what training prompts share
ENDS_BELOW = 0.4  # acceptance at ends of text, over that elsewhere; it says something where
ENDS_ELSEWHERE = 0.75  # acceptance elsewhere is at least so high, or
ENDS_UNSEEN = 0.03  # the draft gives an end less than so much of its share of all tokens
ENDED_LEAST = 0.25  # of the answers end by themselves, where
ENDED_MOST = 0.9  # of the training answers do
ROWS_CUT = 0.2  # of the training answers have lost their end

STILL_RISING = 0.045  # agreement that the second half of the steps added
STILL_FALLING = 0.3  # of the loss that the second half took away, where agreement is not recorded
OVERFIT = 0.06  # agreement on training answers above that on held-out ones

REACHED = 0.9  # of what any single guess could reach: the draft is not what is missing

TEMPERED = 0.03  # acceptance that another temperature of the draft's would add
PRECISION = 0.02  # acceptance lost in the served dtype

SHARED = 0.01  # of the served prompts were trained on: the share that training itself allows
LOOPING = 0.2  # of the answers end in a repetition
FOREIGN_NATS = 0.35  # per token: the training answers' surprise to the target above its own answers'
SHIFTED_PAIRS = 2.0  # times as many new pairs of tokens as training prompts have among themselves, and
SHIFTED_LEAST = 0.15  # as many more

SELECTED_LEAST = 0.2  # of the baseline's label passes were left to the draft
SLOWER = 0.8  # speed promised at the served length over that at the best one, in each of a few measurements
