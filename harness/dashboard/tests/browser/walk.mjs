// Looks at a site with a real browser: node walk.mjs SITE HOSTILE SHOTS MODULES LIVE COMPARISON
//   SITE, HOSTILE  directories of sites; the second has text in it that tries to break out
//   SHOTS          where screenshots go
//   MODULES        the directory with node_modules
//   LIVE           a site that expects to be served
//   COMPARISON     a page of `dmarig compare --format html`
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join, normalize, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [site, hostile, shots, modules, live, comparison] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(modules, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

let failed = 0, passed = 0;
const check = (what, fine, more = "") => {
  if (fine) { passed++; return; }
  failed++;
  console.error(`FAILED: ${what}${more ? `: ${more}` : ""}`);
};
const pages = (root) => readdirSync(root, { recursive: true }).filter((path) => path.endsWith(".html")).sort();
const address = (root, path) => pathToFileURL(join(root, path)).href;
// All of what is there once; of the many alike, those at the ends and in the middle.
const some = (root) => {
  const all = pages(root), few = [];
  for (const kind of ["runs/", "series/"]) {
    const alike = all.filter((path) => path.startsWith(kind));
    few.push(...new Set([alike[0], alike[alike.length >> 1], alike[alike.length - 1]]));
  }
  return [...all.filter((path) => !path.includes("/")), ...few.filter(Boolean)];
};

// A series that has changed, and so is no straight line.
const changed = () => pages(site).find((path) => path.startsWith("series/") && readFileSync(join(site, path), "utf8").includes("class=\"mark"));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// A page that fails on anything that a reader would call broken.
const open = async (root, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.trouble = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) page.trouble.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => page.trouble.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { page.trouble.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("requestfailed", (request) => page.trouble.push(`failed: ${request.url()}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(root) && !url.startsWith("data:")) page.trouble.push(`leaves: ${url}`);
  });
  return page;
};
const quiet = (page, what) => {
  check(`${what} is quiet`, page.trouble.length === 0, page.trouble.join("; "));
  page.trouble.length = 0;
};
const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const violations = async (page) => {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"], preload: false }));
  return found.violations.map((one) => `${one.id} (${one.nodes.length}): ${one.nodes[0].html.slice(0, 200)} ${one.nodes[0].any.map((any) => any.message).join(" ").slice(0, 200)}`);
};
const name = (path) => path.startsWith("runs/") ? "run" : path.startsWith("series/") ? "one-series" : path.replace(".html", "");
const root = pathToFileURL(site).href;

// Every page, in light and dark: nothing is wrong, nothing leaves, everybody can read it.
for (const colorScheme of ["light", "dark"]) {
  const page = await open(root, { colorScheme });
  const seen = new Set();
  for (const path of some(site)) {
    await page.goto(address(site, path));
    quiet(page, `${path} in ${colorScheme}`);
    for (const one of await violations(page)) check(`${path} in ${colorScheme}`, false, one);
    page.trouble.length = 0;
    if (!seen.has(name(path))) await page.screenshot({ path: join(shots, `${name(path)}-${colorScheme}.png`), fullPage: path !== "series.html" });
    seen.add(name(path));
  }
  await page.context().close();
}

// The matrix of checks: each mark stands below its kind, what never was judged does not look like what held,
// and a case leads to its checks, with scripts and without.
for (const javaScriptEnabled of [true, false]) {
  for (const width of [1280, 390]) {
    const page = await open(root, { javaScriptEnabled, viewport: { width, height: 844 } });
    const how = `the matrix at ${width} pixels ${javaScriptEnabled ? "with" : "without"} scripts`;
    await page.goto(address(site, "index.html"));
    const found = await page.locator("table.health").evaluate((table) => {
      const edges = (elements) => [...elements].map((one) => Math.round(one.getBoundingClientRect().left));
      const kinds = [...table.querySelectorAll("thead .axis")].map((axis) => edges(axis.children));
      const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => {
        const marks = cell.querySelector(".marks");
        return marks && edges(marks.children);
      }));
      const crooked = rows.flatMap((row) => row.filter((marks, at) => marks && marks.some((left, of) => Math.abs(left - kinds[at][of]) > 1) || marks && marks.length !== kinds[at].length));
      const looks = {};
      for (const one of document.querySelectorAll(".marks i")) {
        const style = getComputedStyle(one);
        (looks[one.className] ||= new Set()).add(`${one.textContent} ${style.color} ${style.backgroundColor}`);
      }
      return { rows: rows.length, kinds: kinds[0]?.length, crooked: crooked.length, looks: Object.values(looks).map((all) => [...all]) };
    });
    check(`${how} has cases and kinds of checks`, found.rows > 2 && found.kinds > 4, JSON.stringify(found));
    check(`${how} is straight`, found.crooked === 0, `${found.crooked} tiles are not`);
    check(`${how} has a look for each way`, found.looks.length >= 3 && found.looks.every((all) => all.length === 1) && new Set(found.looks.flat()).size === found.looks.length, JSON.stringify(found.looks));
    const frame = await page.locator(".scroll:has(> .health)").evaluate((frame) => frame.getBoundingClientRect().right - document.documentElement.clientWidth);
    check(`${how} stays in its frame`, frame <= 0, `${frame} pixels over`);
    const over = await page.locator(".scroll:has(> .health)").evaluate((frame) => frame.scrollWidth > frame.clientWidth);
    check(`${how} says that it scrolls where it is cut off`, !over || width > 720 || await page.locator(".sideways").isVisible());
    check(`${how} says no such thing on a wide screen`, width <= 720 || !await page.locator(".sideways").isVisible());
    const cases = await page.$$eval("details.case", (all) => all.map((one) => [one.open, one.querySelector("td.cb") !== null]));
    check(`${how} opens what did not hold, and nothing else`, cases.some(([open]) => open) && cases.every(([open, broken]) => open === broken), JSON.stringify(cases));
    const closed = await page.locator("details.case:not([open]) > div").first().getAttribute("id");
    await page.locator(`.health a[href="#${closed}"]`).focus();
    await page.keyboard.press("Enter");
    await page.waitForTimeout(100);
    check(`${how} leads to a case's checks`, await page.locator(`#${closed} tbody td`).first().isVisible());
    const shown = await page.locator(`#${closed}`).evaluate((one) => one.getBoundingClientRect().top < innerHeight);
    check(`${how} brings them on the screen`, shown);
    if (javaScriptEnabled) await page.screenshot({ path: join(shots, `matrix-${width}.png`) });
    quiet(page, how);
    await page.context().close();
  }
}

// A telephone: nothing is wider than it, but in areas that scroll by themselves.
{
  const page = await open(root, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  for (const path of some(site)) {
    await page.goto(address(site, path));
    const over = await wide(page);
    check(`${path} fits a telephone`, over <= 0, `${over} pixels over`);
    if (["index.html", "series.html"].includes(path) || path.includes("/")) await page.screenshot({ path: join(shots, `${name(path)}-phone.png`) });
  }
  quiet(page, "a telephone");
  await page.context().close();
}

// A series: hovering names the run, with value and kernel; keys do the same.
{
  const page = await open(root);
  const path = changed();
  await page.goto(address(site, path));
  const rows = await page.$$eval("#points tbody tr", (rows) => rows.map((row) => [row.cells[0], row.cells[1], row.querySelector("code")].map((cell) => cell.textContent)));
  const plot = page.locator(".plot");
  const box = await plot.boundingBox();
  const tip = page.locator(".tip");
  const known = (text) => rows.some(([run, value, kernel]) => text.includes(value) && text.includes(run) && text.includes(kernel));
  for (const share of [.02, .4, .6, .98]) {
    await page.mouse.move(box.x + box.width * share, box.y + box.height / 2);
    check(`hovering at ${share} names a run`, await tip.isVisible() && known(await tip.textContent()), await tip.textContent());
    const over = await tip.evaluate((tip) => { const box = tip.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; });
    check(`the name at ${share} stays on the screen`, !over);
  }
  await page.mouse.move(box.x + box.width * .7, box.y + box.height / 2);
  await page.screenshot({ path: join(shots, "hover-light.png") });
  const took = await page.evaluate(async () => {
    const plot = document.querySelector(".plot"), box = plot.getBoundingClientRect();
    const began = performance.now();
    for (let at = 0; at < 500; at++) {
      plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width * (at % 100) / 100, clientY: box.top + 50, bubbles: true }));
      document.querySelector(".tip").getBoundingClientRect();
    }
    return (performance.now() - began) / 500;
  });
  console.log(`hovering over ${rows.length} points: ${took.toFixed(3)} ms a move, with layout`);
  await page.mouse.move(5, 5);
  check("the name goes with the pointer", !await tip.isVisible());
  const view = () => page.locator(".plot svg").getAttribute("viewBox");
  const all = await view();
  await page.mouse.move(box.x + box.width * .3, box.y + 100);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * .5, box.y + 120, { steps: 4 });
  await page.mouse.up();
  const zoomed = await view();
  check("dragging zooms", zoomed !== all, zoomed);
  await page.screenshot({ path: join(shots, "zoomed-light.png") });
  await page.mouse.move(5, 5);
  await plot.focus();
  await page.keyboard.press("Escape");
  check("Escape shows all", (await view()).split(" ").every((part, at) => Math.abs(part - all.split(" ")[at]) < .01), await view());
  await page.keyboard.press("End");
  check("End goes to the newest run", (await tip.textContent()).includes(rows[0][0]), await tip.textContent());
  await page.keyboard.press("ArrowLeft");
  check("left goes to the one before", (await tip.textContent()).includes(rows[1][0]), await tip.textContent());
  await page.keyboard.press("+");
  check("plus zooms", await view() !== all);
  await page.keyboard.press("Escape");
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/runs\//);
  check("Enter leads to the run", true);
  quiet(page, "a series");
  await page.context().close();
}

// By keyboard alone: everything is reached, seen, and left again.
{
  const page = await open(root);
  for (const path of ["index.html", "alerts.html", some(site).find((path) => path.startsWith("runs/"))]) {
    await page.goto(address(site, path));
    const count = await page.evaluate(() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")].filter((element) => element.checkVisibility()).length);
    const seen = [];
    let blind = 0;
    for (let at = 0; at < count + 5; at++) {
      await page.keyboard.press("Tab");
      const focus = await page.evaluate(() => {
        const element = document.activeElement;
        if (element === document.body) return null;
        const style = getComputedStyle(element);
        element.dataset.walked = (element.dataset.walked || "") + "x";
        return { text: element.textContent.slice(0, 30), seen: style.outlineStyle !== "none", times: element.dataset.walked.length };
      });
      if (!focus || focus.times > 1) break;
      seen.push(focus);
      if (!focus.seen) blind++;
    }
    check(`${path}: the first stop leads past the menu`, seen[0]?.text.startsWith("Skip"), seen[0]?.text);
    check(`${path}: every stop is reached`, seen.length >= count, `${seen.length} of ${count}`);
    check(`${path}: every stop is seen`, blind === 0, `${blind} are not`);
  }
  await page.goto(address(site, "series.html"));
  await page.keyboard.press("/");
  await page.keyboard.type("elapsed");
  const shown = await page.locator("tbody tr:visible").count(), rows = await page.locator("tbody tr").count();
  check("the filter keeps what fits", shown > 0 && shown < rows, `${shown} of ${rows}`);
  const took = await page.evaluate(() => {
    const input = document.querySelector(".filter input"), began = performance.now();
    for (let at = 0; at < 20; at++) { input.value = at % 2 ? "lazy" : "elapsed"; input.dispatchEvent(new Event("input")); document.body.getBoundingClientRect(); }
    return (performance.now() - began) / 20;
  });
  console.log(`filtering ${rows} rows: ${took.toFixed(2)} ms a key, with layout`);
  await page.locator(".filter input").fill("");
  const head = page.locator("th button", { hasText: "last" }).first();
  await head.focus();
  await page.keyboard.press("Enter");
  const values = await page.$$eval("td.number[data-v]:nth-last-child(3)", (cells) => cells.map((cell) => +cell.dataset.v));
  check("a head sorts its column", values.length > 1 && values.every((value, at) => at === 0 || values[at - 1] <= value), values.slice(0, 5).join(" "));
  quiet(page, "the keyboard");
  await page.context().close();
}

// Two runs, light and dark.
{
  const page = await open(root, { colorScheme: "light" });
  await page.goto(address(site, "compare.html"));
  await page.waitForSelector("#comparison h2");
  const before = await page.locator("#candidate").inputValue();
  await page.selectOption("#baseline", { index: 7 });
  await page.locator("#everything").check();
  await page.waitForSelector("#comparison td");
  check("two runs are compared", await page.locator("#comparison tbody tr").count() > 3);
  await page.locator(".swap").click();
  check("the two are swapped", await page.locator("#baseline").inputValue() === before);
  for (const one of await violations(page)) check("a comparison", false, one);
  await page.screenshot({ path: join(shots, "compared-light.png") });
  await page.locator(".theme").click();
  check("the switch makes it dark", await page.evaluate(() => document.documentElement.dataset.theme) === "dark");
  // Runs that have little or nothing in common.
  const against = async (values, cells) => {
    await page.evaluate(([values, cells]) => {
      const [candidate, baseline] = document.querySelectorAll("form.compare select");
      const series = Array.from({ length: 2 }, (_, at) => ["metric", "case", "kernel", "1", 0, at ? null : 1, "index.html"]);
      const places = [["case", "kernel", 0, 0], ["case", "kernel", 0, 1]];
      window.dmarig.names({ series, least: 4, cells: places, environments: ["here", "there"] });
      window.dmarig.run(candidate.value, { page: "", values: { 0: 1, 1: 1 }, cells: { 0: "passed" } });
      window.dmarig.run(baseline.value, { page: "", values, cells });
      candidate.dispatchEvent(new Event("change"));
    }, [values, cells]);
    await page.waitForTimeout(100);
    return page.locator("#comparison").innerText();
  };
  for (const [values, cells, expected] of [
    [{}, {}, ["They have no number in common", "They have no cell in common"]],
    [{ 0: 1 }, { 0: "passed" }, ["1 of 1 within noise", "None.", "Every number that both have lies within its noise."]],
    [{ 1: 9 }, { 1: "passed" }, ["0 of 0 within noise", "1 of 1 number has no level yet", "1 cell ran in another environment then"]],
    [{ 0: 1, 1: 9 }, { 1: "failed" }, ["1 of 1 within noise", "1 of 2 numbers has no level yet", "there → here", "and that has a level lies within"]],
  ]) {
    const told = await against(values, cells);
    for (const text of expected) check("what two runs have in common", told.includes(text), `no "${text}" in ${told}`);
    if (!("0" in values)) check("nothing is within noise that has none", !told.includes("lies within"), told);
  }
  await page.goto(address(site, "index.html"));
  check("and it stays dark", await page.evaluate(() => document.documentElement.dataset.theme) === "dark");
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.locator(".theme").click();
  const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check("a reader's choice is above the system's", dark !== light, `${dark} ${light}`);
  quiet(page, "comparing");
  await page.context().close();
}

// Without scripts all is there to be read.
{
  const page = await open(root, { javaScriptEnabled: false });
  for (const path of some(site)) {
    await page.goto(address(site, path));
    const controls = await page.locator("button:visible, input:visible, select:visible").count();
    check(`${path} has no dead controls`, controls === 0, `${controls}`);
    const text = await page.locator("main").innerText();
    check(`${path} has something to read`, text.length > 30, text);
  }
  await page.goto(address(site, "compare.html"));
  check("comparisons are linked without scripts", await page.locator("noscript a, main ul a").count() > 0);
  await page.goto(address(site, changed()));
  const line = await page.locator(".plot .line").boundingBox();
  check("a series is drawn without scripts", line.width > 500 && line.height > 5, JSON.stringify(line));
  await page.locator("details summary").first().click();
  check("its points are there", await page.locator("#points tbody tr").first().isVisible());
  await page.screenshot({ path: join(shots, "one-series-scriptless.png") });
  quiet(page, "without scripts");
  await page.context().close();
}

// Text that tries everything: it stays text.
{
  const page = await open(pathToFileURL(hostile).href);
  for (const path of pages(hostile)) {
    await page.goto(address(hostile, path));
    await page.evaluate(() => { for (const type of ["mouseover", "click", "focus"]) for (const element of document.querySelectorAll("main *:not(a):not(button):not(summary)")) element.dispatchEvent(new Event(type)); });
    check(`${path} of the hostile site is whole`, await page.evaluate(() => window.name) === "", await page.evaluate(() => window.name));
    quiet(page, `${path} of the hostile site`);
  }
  await page.setViewportSize({ width: 360, height: 740 });
  for (const path of some(hostile)) {
    await page.goto(address(hostile, path));
    const over = await wide(page);
    check(`${path} of the hostile site fits a telephone`, over <= 0, `${over} pixels over`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.goto(address(hostile, "index.html"));
  await page.screenshot({ path: join(shots, "hostile.png") });
  await page.goto(address(hostile, "compare.html"));
  await page.waitForSelector("#comparison h2");
  await page.locator("#everything").check();
  check("a hostile comparison is whole", await page.evaluate(() => window.name) === "");
  quiet(page, "a hostile comparison");
  await page.context().close();
}

// From a web server, below some path, it is the same; and what is served live shows what is new.
const serve = async (directory, other) => {
  const kinds = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)).replace(/^\/pages/, "");
    if (other(path, response)) return;
    try {
      const body = readFileSync(join(directory, path));
      response.writeHead(200, { "content-type": kinds[path.split(".").pop()] || "text/plain" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return [server, `http://127.0.0.1:${server.address().port}/pages/`];
};
{
  const [server, base] = await serve(site, () => false);
  const page = await open(base);
  for (const path of some(site)) {
    await page.goto(base + path);
    quiet(page, `${path} from a server`);
  }
  await page.context().close();
  server.close();
}
{
  let version = 0;
  const listeners = new Set();
  const [server, base] = await serve(live, (path, response) => {
    if (path !== "/events") return false;
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(`data: ${version}\n\n`);
    listeners.add(response);
    return true;
  });
  const page = await open(base);
  const listening = async (count) => { while (listeners.size < count) await new Promise((done) => setTimeout(done, 20)); };
  for (const path of ["index.html", some(live).find((path) => path.startsWith("runs/"))]) {
    listeners.clear();
    await page.goto(base + path);
    await listening(1);
    await page.evaluate(() => { window.old = true; });
    const loaded = page.waitForEvent("load");
    version++;
    for (const listener of listeners) listener.write(`data: ${version}\n\n`);
    await loaded;
    check(`${path} is loaded again when there is news`, await page.evaluate(() => window.old) === undefined);
    await listening(2);
    for (const one of page.trouble.splice(0)) if (!one.startsWith("failed: ") || !one.endsWith("/events")) check(`${path} served live`, false, one);
  }
  await page.context().close();
  for (const listener of listeners) listener.end();
  server.close();
}

// A comparison in one file.
{
  for (const colorScheme of ["light", "dark"]) {
    const page = await open(pathToFileURL(comparison).href, { colorScheme });
    await page.goto(pathToFileURL(comparison).href);
    for (const one of await violations(page)) check(`the comparison in ${colorScheme}`, false, one);
    page.trouble.length = 0;
    await page.screenshot({ path: join(shots, `comparison-${colorScheme}.png`), fullPage: true });
    await page.setViewportSize({ width: 360, height: 740 });
    const over = await wide(page);
    check("the comparison fits a telephone", over <= 0, `${over} pixels over`);
    await page.context().close();
  }
}

await browser.close();
console.log(`${passed} checks held, ${failed} failed; screenshots: ${shots}`);
process.exitCode = failed ? 1 : 0;
