"""The HTML of a page, filled in by jinja2, which escapes whatever it is given."""

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style | safe }}</style></head>
<body><main>
<h1>{{ title }}</h1>
{% if verdicts %}<section class="verdict"><h2>Verdict</h2>
<div class="runs">{% for name, said in verdicts %}<div>{% if name %}<h3>{{ name }}</h3>{% endif %}
{% for sentence in said %}<p>{{ sentence }}</p>
{% endfor %}</div>{% endfor %}</div>
{% for line in missing %}<p class="missing">{{ line }}</p>{% endfor %}
</section>{% endif %}
{% if tables %}<section><h2>Result</h2>
{% for each in tables %}{% if each.name %}<h3>{{ each.name }}</h3>{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="Result{{ ' of ' ~ each.name if each.name else '' }}">\
<table class="result">
<thead><tr>{% for cell in each.head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in each.rows %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td data-label="{{ each.head[loop.index] }}">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% for sentence in each.said %}<p>{{ sentence }}</p>{% endfor %}{% endfor %}
</section>{% endif %}
{% if diagnoses %}<section><h2>Why acceptance is what it is</h2>
{% for name, each in diagnoses %}{% if name %}<h3>{{ name }}</h3>{% endif %}<p>{{ each.verdict }}</p>
<details><summary>The checklist{{ ' of ' ~ name if name else '' }}</summary>
<dl class="checks">{% for found in each.findings %}<dt>{{ found.check }}: {{ found.verdict }}</dt>
<dd>{{ found.says }}{% if found.command %} <code>{{ found.command }}</code>{% endif %}</dd>{% endfor %}</dl></details>
{% endfor %}</section>{% endif %}
{% if differing %}<section><h2>Settings that differ</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Settings that differ"><table class="words">
<thead><tr><th scope="col">setting</th>{% for name in names %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in differing %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div></section>{% endif %}
{% for heading, drawn in figures %}{% if drawn %}<section><h2>{{ heading }}</h2><div class="figures">
{% for figure in drawn %}<figure><h3>{{ figure.title }}</h3>{{ figure.svg | safe }}
<figcaption>{{ figure.says }}</figcaption>
<details{% if not figure.svg %} open{% endif %}><summary>The numbers of: {{ figure.title }}</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Numbers of {{ figure.title }}"><table>
<thead><tr>{% for cell in figure.head %}<th scope="col">{{ cell or "what" }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in figure.rows %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div></details></figure>
{% endfor %}</div></section>{% endif %}{% endfor %}
{% if answers %}<section><h2>Token by token</h2>
<p>Point at a token, tap it, or go through them with the arrow keys: what both models gave it, and what else they might
have written.</p>
<div id="controls" class="controls" hidden>
<label>Text <select id="pick">{% for each in answers %}<option value="{{ loop.index0 }}">{{ each.title }}</option>
{% endfor %}</select></label>
<fieldset><legend>Colour by</legend>
<label><input type="radio" name="colour" value="acceptance" checked> acceptance</label>
<label><input type="radio" name="colour" value="gap"> loss gap</label>
<label><input type="radio" name="colour" value="selection"> selection</label></fieldset></div>
<div id="view" class="by-acceptance">
<div class="legend acceptance"><span class="t key a">accepted guess</span>
<span class="t key r">the target's own, in place of a refused guess</span>
<span class="t key b">the target's own, nothing guessed</span></div>
<div class="legend gap"><span>Loss gap to the reference, in nats:</span> <span class="t key g0">0 or less</span>
<span class="t key g1">below 0.1</span> <span class="t key g2">below 0.5</span> <span class="t key g3">more</span></div>
<div class="legend selection"><span class="t key s">selected, by the gap now</span>
<span class="t key l">left out</span></div>
{% for each in answers %}<div class="answer"><h3>{{ each.title }}</h3><p>{{ each.says }}</p>
{% if each.prompt %}<div class="prompt">{{ each.prompt }}</div>{% endif %}
<div class="tokens" tabindex="0" role="listbox" aria-label="Tokens of {{ each.title }}" \
data-answer="{{ loop.index0 }}">{% set number = loop.index0 %}{% for css, text in each.tokens %}\
<span class="t {{ css }}" role="option" aria-selected="false" id="t{{ number }}-{{ loop.index0 }}">{{ text }}</span>\
{% endfor %}</div>
{% if each.numbers %}<noscript><details><summary>The numbers of {{ each.title }}</summary>
<div class="scroll"><table>
<thead><tr>{% for cell in each.head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in each.numbers %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div></details></noscript>
{% endif %}
</div>{% endfor %}
<div id="numbers" class="numbers" role="status" hidden></div>
</div></section>{% endif %}
{% for heading, pairs in folded %}<section><details><summary>{{ heading }}</summary>
<dl>{% for name, value in pairs %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></details></section>
{% endfor %}
</main>
{% if answers %}<script type="application/json" id="answers">{{ blob | safe }}</script>
<script>{{ script | safe }}</script>{% endif %}
</body></html>
"""
