// What is lost without it: hovering, zooming, sorting, filtering, copying, choosing two runs.
// Text from elsewhere is only ever set as text.
"use strict";
(() => {
  const root = document.documentElement;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Light or dark, before anything is drawn.
  const stored = () => { try { return localStorage.getItem("dmarig-theme"); } catch { return null; } };
  const theme = stored();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const switchTheme = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("dmarig-theme", root.dataset.theme); } catch { /* only for this page, then */ }
  };

  // Tables: a head sorts, a field filters.
  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return "";
    const number = cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
    return Number.isNaN(number) ? cell.textContent.trim() : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = make("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
        rows.sort((a, b) => down ? compare(b[0], a[0]) : compare(a[0], b[0]));
        table.tBodies[0].append(...rows.map((row) => row[1]));
      });
    });
  };
  const filtered = (field) => {
    const input = field.querySelector("input"), told = field.querySelector(".matches");
    const rows = [...document.querySelectorAll("table.filtered tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => {
        row.hidden = !words.every((word) => texts[at].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      // What fits is seen, wherever it is put away.
      if (words.length) for (const row of rows) if (!row.hidden && row.closest("details")) row.closest("details").open = true;
      told.textContent = words.length ? `${shown} of ${rows.length}` : "";
    };
    field.hidden = rows.length < 8;
    input.addEventListener("input", apply);
    if (input.value) apply();
  };

  const copier = (button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Not allowed for a page from a disk in some browsers: then it is chosen, to be copied by hand.
        getSelection().selectAllChildren(code);
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  };

  // Four digits that count, as elsewhere on the pages.
  const digits = (number) => {
    const whole = Math.floor(Math.log10(Math.abs(number)));
    return String(Number(number.toFixed(Number.isFinite(whole) ? Math.min(9, Math.max(0, 3 - whole)) : 0)));
  };
  const round = (low, high) => {
    const rough = 10 ** Math.floor(Math.log10((high - low) / 5));
    const step = [1, 2, 5, 10].map((factor) => factor * rough).find((step) => (high - low) / step <= 6) || rough * 10;
    const found = [];
    for (let at = Math.ceil(low / step); at <= Math.floor(high / step); at++) found.push(at * step);
    return found;
  };
  const DAY = 86400;

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.plot = figure.querySelector(".plot");
      this.svg = this.plot.querySelector("svg");
      const all = figure.dataset;
      this.all = { from: +all.from, to: +all.to, low: +all.low, high: +all.high };
      this.scale = +all.scale;
      this.unit = all.unit;
      this.view = { ...this.all };
      this.at = null;
      this.cross = make("div", { className: "cross", hidden: true });
      this.tip = make("div", { className: "tip", hidden: true });
      this.tip.setAttribute("role", "status");
      this.chosen = make("div", { className: "chosen", hidden: true });
      this.plot.append(this.chosen, this.cross, this.tip);
      this.plot.addEventListener("pointermove", (event) => this.move(event));
      this.plot.addEventListener("pointerleave", () => { if (!this.drag && document.activeElement !== this.plot) this.leave(); });
      this.plot.addEventListener("pointerdown", (event) => this.down(event));
      this.plot.addEventListener("pointerup", (event) => this.up(event));
      this.plot.addEventListener("pointercancel", () => { this.drag = null; this.chosen.hidden = true; });
      this.plot.addEventListener("dblclick", () => this.zoom(this.all.from, this.all.to));
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("blur", () => this.leave());
      this.buttons();
    }
    // Read from the table when they are first needed.
    get points() {
      if (!this.read) {
        const rows = [...document.querySelectorAll("#points tbody tr")].reverse();
        this.read = rows.map((row) => ({ t: +row.dataset.t, v: +row.dataset.v, row })).filter((point) => Number.isFinite(point.v));
      }
      return this.read;
    }
    buttons() {
      const days = (this.all.to - this.all.from) / DAY;
      const ranges = [[30, "30 nights"], [90, "90 nights"], [180, "half a year"]].filter(([length]) => length < days);
      if (!ranges.length) return;
      const bar = make("p", { className: "ranges" });
      for (const [length, name] of [...ranges, [Infinity, "all"]]) {
        const button = make("button", { type: "button", textContent: name });
        button.addEventListener("click", () => this.zoom(Math.max(this.all.from, this.all.to - length * DAY), this.all.to));
        bar.append(button);
      }
      this.figure.before(bar);
    }
    time(event) {
      const box = this.plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      return this.view.from + share * (this.view.to - this.view.from);
    }
    nearest(time) {
      const points = this.points;
      let low = 0, high = points.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (points[middle].t < time) low = middle; else high = middle;
      }
      const near = Math.abs(points[low].t - time) <= Math.abs(points[high].t - time) ? low : high;
      return Math.max(0, near);
    }
    move(event) {
      if (!this.points.length) return;
      const time = this.time(event);
      if (this.drag) {
        const [left, right] = [this.drag.time, time].sort((a, b) => a - b).map((time) => this.share(time) * 100);
        this.chosen.hidden = right - left < 1;
        this.chosen.style.left = `${left}%`;
        this.chosen.style.width = `${right - left}%`;
      }
      this.show(this.nearest(time));
    }
    down(event) {
      if (event.button !== 0 || event.pointerType === "touch" || event.target.closest("a")) return;
      this.drag = { time: this.time(event), x: event.clientX };
      this.plot.setPointerCapture(event.pointerId);
    }
    up(event) {
      const drag = this.drag;
      this.drag = null;
      this.chosen.hidden = true;
      if (!drag) return;
      if (Math.abs(event.clientX - drag.x) > 8) {
        const [from, to] = [drag.time, this.time(event)].sort((a, b) => a - b);
        this.zoom(from, to);
      } else if (this.at !== null) {
        const link = this.points[this.at].row.querySelector("a");
        if (link) location.href = link.href;
      }
    }
    key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey || event.target !== this.plot || !this.points.length) return;
      const inView = this.points.map((point, at) => [point, at]).filter(([point]) => point.t >= this.view.from && point.t <= this.view.to);
      const first = inView.length ? inView[0][1] : 0, last = inView.length ? inView[inView.length - 1][1] : this.points.length - 1;
      const from = this.at === null ? (event.key === "ArrowRight" ? first - 1 : last + 1) : this.at;
      const middle = this.at === null ? (this.view.from + this.view.to) / 2 : this.points[this.at].t;
      const scaled = (factor) => {
        const half = (this.view.to - this.view.from) * factor / 2;
        this.zoom(Math.max(this.all.from, middle - half), Math.min(this.all.to, middle + half));
      };
      switch (event.key) {
        case "ArrowLeft": this.show(Math.max(first, from - 1)); break;
        case "ArrowRight": this.show(Math.min(last, from + 1)); break;
        case "Home": this.show(first); break;
        case "End": this.show(last); break;
        case "+": case "=": scaled(.5); break;
        case "-": scaled(2); break;
        case "Escape": this.zoom(this.all.from, this.all.to); this.leave(); break;
        case "Enter": if (this.at !== null) this.points[this.at].row.querySelector("a")?.click(); break;
        default: return;
      }
      event.preventDefault();
    }
    share(time) { return (time - this.view.from) / (this.view.to - this.view.from); }
    show(at) {
      this.at = at;
      const point = this.points[at];
      const share = this.share(point.t);
      const height = 1 - (point.v - this.view.low) / (this.view.high - this.view.low);
      this.cross.hidden = this.tip.hidden = false;
      this.cross.style.left = `${share * 100}%`;
      this.cross.style.setProperty("--at", `${height * 100}%`);
      const [run, told] = [...point.row.cells].map((cell) => cell.textContent);
      const samples = point.row.querySelector(".samples"), kernel = point.row.querySelector("code").textContent;
      this.tip.replaceChildren(make("b", { textContent: told }), make("span", { textContent: `run of ${run}` }), make("span", { textContent: kernel }));
      if (samples) this.tip.append(make("span", { textContent: samples.textContent === "1" ? "1 sample" : `median of ${samples.textContent} samples` }));
      const right = share > .5;
      this.tip.style.left = right ? "" : `calc(${share * 100}% + 14px)`;
      this.tip.style.right = right ? `calc(${(1 - share) * 100}% + 14px)` : "";
    }
    leave() {
      this.at = null;
      this.cross.hidden = this.tip.hidden = true;
    }
    zoom(from, to) {
      const { all } = this;
      const inside = this.points.filter((point) => point.t >= from && point.t <= to);
      const whole = from <= all.from && to >= all.to;
      if (!whole && (to - from < 2 * DAY || !inside.length)) return;
      let { low, high } = all;
      if (!whole) {
        low = Math.min(...inside.map((point) => point.v));
        high = Math.max(...inside.map((point) => point.v));
        const room = (high - low) * .12 || Math.max(Math.abs(low) * .1, .5);
        [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
      }
      this.view = { from, to, low, high };
      // The area stretches to whatever part of it is looked at.
      const x = (time) => (time - all.from) / (all.to - all.from) * 1000;
      const y = (value) => 300 - (value - all.low) / (all.high - all.low) * 300;
      this.svg.setAttribute("viewBox", `${x(from)} ${y(high)} ${x(to) - x(from)} ${y(low) - y(high)}`);
      const ticks = round(low / this.scale, high / this.scale);
      this.svg.querySelector(".grid").setAttribute("d", ticks.map((tick) => `M0 ${y(tick * this.scale)}H1000`).join(""));
      const down = (tick) => 100 - (tick * this.scale - low) / (high - low) * 100;
      const label = (text, side, percent) => {
        const span = make("span", { textContent: text });
        span.style[side] = `${percent}%`;
        return span;
      };
      const unit = this.figure.querySelector(".y b");
      this.figure.querySelector(".y").replaceChildren(...ticks.map((tick) => label(digits(tick), "top", down(tick))), ...(unit ? [unit] : []));
      this.times();
      for (const mark of this.plot.querySelectorAll(".mark")) {
        const share = this.share(+mark.dataset.at);
        mark.hidden = share < 0 || share > 1;
        mark.style.left = `${share * 100}%`;
      }
      // What is named stays named as long as it can be seen.
      if (this.at !== null && (this.points[this.at].t < from || this.points[this.at].t > to)) this.leave();
      else if (this.at !== null) this.show(this.at);
    }
    times() {
      const { from, to } = this.view;
      const days = Math.max(1, Math.round((to - from) / DAY / 6));
      const name = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC", ...(days > 40 ? { year: "numeric" } : {}) });
      const spans = [];
      for (let time = Math.ceil(from / DAY) * DAY; time <= to; time += days * DAY) {
        const span = make("span", { textContent: name.format(time * 1000) });
        span.style.left = `${this.share(time) * 100}%`;
        span.className = this.share(time) > .94 ? "end" : "";
        spans.push(span);
      }
      this.figure.querySelector(".x").replaceChildren(...spans);
    }
  }

  // Two runs of the reader's choice.
  const runs = new Map();
  let names = null;
  window.dmarig = {
    names: (data) => { names = data; },
    run: (name, data) => { runs.set(name, data); },
  };
  const load = (name) => runs.has(name) ? Promise.resolve(runs.get(name)) : new Promise((resolve, reject) => {
    const script = make("script", { src: `${root.dataset.root}data/${name}.js` });
    script.addEventListener("load", () => runs.has(name) ? resolve(runs.get(name)) : reject(new Error(name)));
    script.addEventListener("error", () => reject(new Error(name)));
    document.head.append(script);
  });
  const quantity = (value, unit) => {
    const steps = unit === "ns" ? [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]]
      : unit === "bytes/s" ? [[2 ** 30, "GiB/s"], [2 ** 20, "MiB/s"], [1024, "KiB/s"]] : [[1, unit === "1" ? "" : unit]];
    const [size, name] = steps.find(([size]) => Math.abs(value) >= size) || steps[steps.length - 1];
    return `${digits(value / size)} ${name}`.trim();
  };
  const table = (label, heads, rows) => {
    const head = make("tr", {}, ...heads.map(([text, number]) => make("th", { scope: "col", textContent: text, className: number ? "number" : "" })));
    const element = make("table", { className: "sortable" }, make("thead", {}, head), make("tbody", {}, ...rows));
    const scroll = make("div", { className: "scroll", tabIndex: 0 }, element);
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", label);
    sortable(element);
    return scroll;
  };
  const cell = (content, number, sort) => {
    const td = make("td", { className: number ? "number" : "" }, content);
    if (sort !== undefined) td.dataset.v = sort;
    return td;
  };
  const signs = { passed: ["✓", "passed"], failed: ["✗", "failed"], skipped: ["–", "skipped"], "timed out": ["…", "timedout"], errored: ["!", "errored"] };
  const verdict = (word) => {
    if (!word) return make("span", { className: "muted", textContent: "not there" });
    const [symbol, name] = signs[word] || ["?", "skipped"];
    const sign = make("span", { className: `sign ${name}`, textContent: symbol });
    sign.setAttribute("aria-hidden", "true");
    return make("span", { className: `state ${name}` }, sign, word);
  };
  const chooser = (form) => {
    const [candidate, baseline] = form.querySelectorAll("select");
    const everything = form.querySelector("#everything"), place = document.getElementById("comparison");
    const asked = decodeURIComponent(location.hash.slice(1)).split(",");
    const has = (select, name) => [...select.options].some((option) => option.value === name);
    baseline.selectedIndex = Math.min(1, baseline.options.length - 1);
    if (has(candidate, asked[0])) candidate.value = asked[0];
    if (has(baseline, asked[1])) baseline.value = asked[1];
    const show = async () => {
      history.replaceState(null, "", `#${candidate.value},${baseline.value}`);
      try {
        const [ours, theirs] = await Promise.all([load(candidate.value), load(baseline.value)]);
        compareRuns(place, ours, theirs, everything.checked);
      } catch (error) {
        place.replaceChildren(make("p", { className: "note", textContent: `The numbers of a run are missing: ${error.message}. Make the site again.` }));
      }
    };
    for (const element of [candidate, baseline, everything]) element.addEventListener("change", show);
    form.querySelector(".swap").addEventListener("click", () => {
      [candidate.value, baseline.value] = [baseline.value, candidate.value];
      show();
    });
    show();
  };
  const compareRuns = (place, ours, theirs, everything) => {
    // A cell that did not run in the same environment then is held against the same one in another.
    const left = new Map();
    for (const at of Object.keys(theirs.cells)) {
      const place = names.cells[at][2];
      if (!(at in ours.cells)) left.set(place, [...(left.get(place) || []), at]);
    }
    const pairs = Object.keys(ours.cells).map((at) => [at, at in theirs.cells ? at : (left.get(names.cells[at][2]) || []).shift()]);
    const rest = [...left.values()].flat().map((at) => [undefined, at]);
    const both = pairs.filter(([, theirs]) => theirs !== undefined);
    const moved = both.filter(([ours, theirs]) => ours !== theirs).length;
    const turned = [...pairs, ...rest].filter(([at, other]) => ours.cells[at] !== theirs.cells[other]).map(([at, other]) => {
      const [label, kernel] = names.cells[at ?? other];
      const places = [...new Set([other, at].filter((at) => at !== undefined).map((at) => names.environments[names.cells[at][3]] || ""))];
      const where = names.environments.length > 1 ? make("small", { className: "muted", textContent: ` ${places.join(" → ")}` }) : "";
      return make("tr", {}, cell(make("span", {}, label, where)), cell(kernel), cell(verdict(theirs.cells[other])), cell(verdict(ours.cells[at])));
    });
    const count = (many, what) => `${many} ${what}${many === 1 ? "" : "s"}`;
    const numbers = [];
    let within = 0, common = 0, without = 0;
    for (const at of Object.keys(ours.values)) {
      if (!(at in theirs.values)) continue;
      const [metric, label, kernel, unit, better, sd, page] = names.series[at];
      const [now, before] = [ours.values[at], theirs.values[at]];
      common++;
      // Of a series of few points nobody knows what its noise is.
      const away = sd === null ? 0 : (now - before) / Math.max(sd, Math.abs(before) * 1e-3, Number.MIN_VALUE);
      const noise = Math.abs(away) <= 3 * Math.SQRT2;
      if (sd === null) without++; else if (noise) within++;
      if (noise && !everything) continue;
      numbers.push({ metric, label, kernel, unit, better, page, now, before, away, noise, level: sd !== null });
    }
    numbers.sort((a, b) => Math.abs(b.away) - Math.abs(a.away));
    const rows = numbers.map((one) => {
      const worse = one.better !== 0 && Math.sign(one.now - one.before) === -one.better;
      const way = one.noise || one.now === one.before ? "none" : one.better === 0 ? "other" : worse ? "worse" : "better";
      const sign = { worse: "! ", better: "✓ ", other: "◇ ", none: "" }[way];
      const percent = one.now === one.before ? "0 %" : one.before === 0 ? "new" : `${one.now > one.before ? "+" : ""}${((one.now / one.before - 1) * 100).toFixed(1)} %`;
      const link = make("a", { href: root.dataset.root + one.page }, make("strong", { textContent: one.metric }));
      const word = make("span", { className: "unseen", textContent: { worse: ", worse", better: ", better", other: ", changed", none: "" }[way] });
      return make("tr", {}, cell(make("span", {}, link, " ", make("span", { className: "muted", textContent: one.label }))), cell(one.kernel),
        cell(quantity(one.before, one.unit), true, one.before), cell(quantity(one.now, one.unit), true, one.now),
        cell(make("span", { className: `change ${way}` }, sign + percent, word), true, one.before ? one.now / one.before : 0), cell(!one.level ? "no level" : Math.abs(one.away) > 999 ? "far" : one.away.toFixed(1), true, one.away));
    });
    const quiet = (textContent) => make("p", { className: "quiet", textContent });
    const judged = common - without;
    const notes = common === 0 ? ["They have no number in common: a series is of one case, variant, kernel, machine and QEMU."]
      : [...(judged > 0 && within === judged ? [`Every number that both have${without ? " and that has a level" : ""} lies within its noise.`] : []),
        ...(without ? [`${without} of ${count(common, "number")} ${without === 1 ? "has" : "have"} no level yet: that takes ${names.least} points in one environment.`] : [])];
    const cells = both.length === 0 ? "They have no cell in common." : turned.length ? "" : "None.";
    place.replaceChildren(
      make("h2", {}, "Verdicts that differ"),
      ...(moved ? [quiet(`${count(moved, "cell")} ran in another environment then: on another machine, system or QEMU.`)] : []),
      ...(cells ? [quiet(cells)] : []),
      ...(turned.length ? [table("Verdicts that differ", [["cell"], ["kernel"], ["baseline"], ["candidate"]], turned)] : []),
      make("h2", {}, "Numbers ", make("small", { textContent: common ? `${within} of ${judged} within noise` : "none in common" })),
      ...notes.map(quiet),
      ...(rows.length ? [table("Numbers", [["series"], ["kernel"], ["baseline", true], ["candidate", true], ["change", true], ["in noise's deviations", true]], rows)] : []));
  };

  // A served page loads itself again when there is news.
  const follow = (address) => {
    let version = null;
    const events = new EventSource(address);
    events.addEventListener("message", (event) => {
      if (version !== null && version !== event.data) location.reload();
      version = event.data;
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector(".theme");
    if (button) { button.hidden = false; button.addEventListener("click", switchTheme); }
    document.querySelectorAll(".scripted").forEach((element) => { element.hidden = false; });
    document.querySelectorAll("table.sortable").forEach(sortable);
    document.querySelectorAll(".filter").forEach(filtered);
    document.querySelectorAll(".copy").forEach(copier);
    document.querySelectorAll("figure.chart").forEach((figure) => new Chart(figure));
    document.querySelectorAll("form.compare").forEach(chooser);
    document.addEventListener("keydown", (event) => {
      const field = document.querySelector(".filter:not([hidden]) input");
      if (event.key === "/" && field && !event.target.closest("input, select, textarea")) {
        event.preventDefault();
        field.focus();
      }
    });
    // A place in a closed part of the page is opened, when an address leads to it.
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target && target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    if (root.dataset.live) follow(root.dataset.live);
  });
})();
