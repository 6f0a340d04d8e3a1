"""The one script of a page: an answer and a colouring are chosen, a token's numbers shown. Text goes in as text."""

SCRIPT = """
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("answers").textContent);
  const view = document.getElementById("view"), panel = document.getElementById("numbers");
  const pick = document.getElementById("pick"), answers = [...view.querySelectorAll(".answer")];
  const say = (parent, tag, text) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const spaces = run => "␣".repeat(run.length);  // a token stands alone here: its outer spaces would be nothing
  const shown = text => text === "" ? "∅"
    : text.replace(/^ +| +$/g, spaces).replaceAll("\\n", "↵").replaceAll("\\t", "→");
  const share = x => (100 * x).toFixed(x < 0.001 && x > 0 ? 3 : 1) + " %";
  const nats = x => x.toFixed(3) + " nats";
  const choices = (box, title, texts, law, pieces) => {
    const part = say(box, "div");
    say(part, "strong", title);
    const list = say(part, "ol");
    texts.forEach((text, i) => {
      const line = say(list, "li");
      say(line, "span", shown(pieces[text]));
      line.append("  " + share(law[i]));
    });
  };
  const tell = (block, i) => {
    const at = data[+block.dataset.answer], pieces = at.pieces, token = block.children[i];
    view.querySelectorAll(".t.on").forEach(old => { old.classList.remove("on"); old.ariaSelected = "false"; });
    token.classList.add("on");
    token.ariaSelected = "true";
    block.setAttribute("aria-activedescendant", token.id);
    panel.replaceChildren();
    const head = say(panel, "div");
    say(head, "b", shown(pieces[at.text[i]]));
    const facts = [];
    if (at.kind) facts.push(at.kind[i]);
    if (at.accepted) {
      const guess = at.refused[i];
      const refused = guess < 0 ? "" : ", in place of the refused guess “" + shown(pieces[guess]) + "”";
      facts.push(at.accepted[i] ? "accepted guess" : "written by the target" + refused, at.classes[at["class"][i]]);
      facts.push("p " + share(at.p[i]), "q " + share(at.q[i]), "KL " + nats(at.kl[i]));
    }
    if (at.gap && at.gap[i] !== null) facts.push("gap " + nats(at.gap[i]));
    say(panel, "div", facts.join(" · "));
    if (at.target) {
      const both = say(panel, "div");
      both.className = "both";
      choices(both, "The target (p)", at.target[i], at.target_law[i], pieces);
      choices(both, "The draft (q)", at.draft[i], at.draft_law[i], pieces);
    }
    panel.hidden = false;
  };
  const choose = () => answers.forEach((answer, i) => { answer.hidden = String(i) !== pick.value; });
  view.querySelectorAll(".tokens").forEach(block => {
    let here = -1;
    const go = i => { here = Math.max(0, Math.min(block.children.length - 1, i)); tell(block, here); };
    const over = event => {
      const token = event.target.closest(".t");
      if (token) go([...block.children].indexOf(token));
    };
    block.addEventListener("click", over);
    block.addEventListener("pointerover", event => { if (event.pointerType === "mouse") over(event); });
    block.addEventListener("focus", () => { if (here < 0 && block.matches(":focus-visible")) go(0); });
    block.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const end = { Home: 0, End: block.children.length - 1 }[event.key];
      if (step === undefined && end === undefined) return;
      event.preventDefault();
      go(step === undefined ? end : here + step);
      block.children[here].scrollIntoView({ block: "nearest" });
    });
  });
  document.querySelectorAll("input[name=colour]").forEach(each => each.addEventListener("change", () => {
    view.className = "by-" + each.value;
  }));
  pick.addEventListener("change", () => { choose(); panel.hidden = true; });
  document.getElementById("controls").hidden = false;
  choose();
})();
"""
