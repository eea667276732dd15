# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Read TAP strictly: plan, results and exit status must agree, or the stream is a failure."""
import re

RESULT = re.compile(r"(not )?ok\b\s*(\d+)?\s*-?\s*(.*)")
PLAN = re.compile(r"1\.\.(\d+)")


class Case:
    """One result line."""

    def __init__(self, name, passed, skipped=None):
        self.name = name
        self.passed = passed
        self.skipped = skipped  # the reason, or None


def read(lines):
    """Lines -> (cases, list of complaints). Comments and other text are passed over."""
    cases, complaints, plan = [], [], None
    for line in lines:
        if line.startswith("Bail out!"):
            complaints.append(line)
        elif match := PLAN.fullmatch(line.strip()):
            if plan is not None:
                complaints.append("two plans")
            plan = int(match[1])
        elif match := RESULT.match(line):
            text = match[3]
            skip = None
            if directive := re.search(r"#\s*skip\b\s*(.*)", text, re.IGNORECASE):
                skip = directive[1] or "no reason given"
                text = text[:directive.start()]
            if match[2] and int(match[2]) != len(cases) + 1:
                complaints.append(f"result {match[2]} stands where {len(cases) + 1} is due")
            cases.append(Case(text.strip() or f"case {len(cases) + 1}", not match[1], skip))
    if plan is None:
        complaints.append("no plan")
    elif plan != len(cases):
        complaints.append(f"plan of {plan}, {len(cases)} results")
    if not cases:
        complaints.append("no results")
    return cases, complaints
