// Copyright: (c) 2026, Muster contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// The page of the allocator.
//
// Rules
// 1. Whatever comes from elsewhere is put in as text (textContent), never as markup. The page's policy forbids the latter.
// 2. The token is kept in this tab (sessionStorage), goes into one header, and nowhere else.
// 3. What is shown is what the watch has told. An answer to what the user did is shown at once; the watch corrects it.
// 4. A request to create has a key that stays until the server has answered: sent twice it makes one instance.
// 5. A refusal is shown where what was refused was asked for.

const TOKEN = "muster.allocator.token";
const UNANSWERED = "muster.allocator.unanswered"; // a request to create: key, body, who
const REQUEST_SECONDS = 30;
const SILENT_SECONDS = 40; // the server sends a bookmark every 15 s: a watch that says nothing for so long is dead
const LONGEST_PAUSE = 30; // seconds between two attempts to connect
const HIDDEN_SECONDS = 60; // a tab that nobody has seen for so long lets its connection go: a browser has few
const FILTER_FROM = 9; // instances: fewer need no filter

const MOODS = { Ready: "good", Failed: "bad", Suspended: "idle" }; // of phases; all others are under way
const SAFE = { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER };

const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------------------ Elements

/** A new element. Properties are set as properties, but for aria-… and data-…; children are elements or text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  for (const child of children) element.append(typeof child === "string" ? document.createTextNode(child) : child);
  return element;
}

/** Set an element's text, if it is another one: what has not changed is not announced, and keeps its selection. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show text in an element; without any it is hidden. */
function show(element, text) {
  say(element, text);
  element.hidden = text === "";
}

let announced = 0;

/** Tell a screen reader; also the same thing twice. */
function announce(text) {
  announced += 1;
  $("announcer").textContent = text + (announced % 2 ? "" : "\u00a0");
}

function plural(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS = [[60, "second"], [60, "minute"], [24, "hour"], [7, "day"], [4.35, "week"], [12, "month"], [Infinity, "year"]];

function ago(time) {
  let passed = (Date.parse(time) - Date.now()) / 1000;
  if (Number.isNaN(passed)) return "";
  if (Math.abs(passed) < 5) return "just now";
  for (const [size, unit] of STEPS) {
    if (Math.abs(passed) < size) return AGO.format(Math.round(passed), unit);
    passed /= size;
  }
  return "";
}

/** A time as people say it; all of them are brought up to date now and then. */
function timeOf(time) {
  const element = make("time", { dateTime: time, title: full(time) });
  element.textContent = ago(time);
  return element;
}

function full(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

setInterval(() => {
  for (const element of document.querySelectorAll("time")) say(element, ago(element.dateTime));
}, 15_000);

// ------------------------------------------------------------------------------------------------------------ Requests

/** The server has refused. */
class Refusal extends Error {
  constructor(status, problem, retryAfter) {
    super(typeof problem.detail === "string" && problem.detail ? problem.detail : String(problem.title ?? ""));
    this.status = status;
    this.problem = problem;
    this.word = String(problem.type ?? "").replace(/^urn:muster:allocator:/, "");
    this.retryAfter = retryAfter; // seconds, or 0
  }

  /** Whether the server may have done it all the same, or will do it if it is asked again. */
  get isOpen() {
    return this.status >= 500 || [401, 408, 429].includes(this.status) || this.word === "conflict";
  }
}

/** No answer came: nobody knows whether it was done. */
class NoAnswer extends Error {
  get isOpen() {
    return true;
  }
}

/** What went wrong, for people. `isTriedAgain`: by the page itself, which says when. */
function words(error, isTriedAgain = false) {
  if (error instanceof NoAnswer) return `No answer came from the service.${isTriedAgain ? "" : " Try again."}`;
  if (!(error instanceof Refusal)) return `The page itself has failed: ${error.message}`;
  const { limit, used, scope } = error.problem;
  const soon = error.retryAfter ? ` Try again in ${plural(error.retryAfter, "second")}.` : " Try again in a moment.";
  const wait = isTriedAgain ? "" : soon;
  switch (error.word) {
    case "quota":
      return scope === "global"
        ? `All places of this service are taken (${used} of ${limit}). Ask who runs it, or try again later.`
        : `You have used ${used} of ${limit}. Destroy an instance to make room for another.`;
    case "throttled":
      return `You ask for more than the service answers.${wait}`;
    case "overloaded":
      return `The service has too much to do just now.${wait}`;
    case "unavailable":
      return `The service can't reach its cluster.${wait}`;
    case "refused-by-cluster":
      return `The cluster would not take this instance: ${error.message}`;
    case "key-busy":
      return "The instance that this request has made is being destroyed. Send it again for a new one.";
    case "key-reused":
      return "This request could not be told from an earlier one. Send it again.";
    default:
      return sentence(error.message || `The service answered with status ${error.status}.`);
  }
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** Send a request. Raises Refusal or NoAnswer; the caller's signal ends it with an AbortError. */
async function send(token, method, path, { body, headers = {}, signal, forever = false } = {}) {
  const signals = [signal, forever ? null : AbortSignal.timeout(REQUEST_SECONDS * 1000)].filter(Boolean);
  const sent = { ...headers, Authorization: `Bearer ${token}`, Accept: "application/json" };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, body, headers: sent, signal: AbortSignal.any(signals), cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch {
    if (signal?.aborted) throw new DOMException("given up", "AbortError");
    throw new NoAnswer();
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = (await answer.json()) ?? {};
  } catch {
    // not ours: something between here and the server has answered
  }
  const wait = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
  throw new Refusal(answer.status, problem, Number.isFinite(wait) && wait > 0 ? wait : 0);
}

async function json(answer, signal) {
  try {
    return await answer.json();
  } catch {
    if (signal?.aborted) throw new DOMException("given up", "AbortError");
    throw new NoAnswer(); // it broke off
  }
}

const instancePath = (name) => `v1/instances/${encodeURIComponent(name)}`;

// ------------------------------------------------------------------------------------------------------------- Session

/** All that belongs to one who is signed in; null before. Nothing of it outlives its end. */
let session = null;

class Session {
  constructor(token, offer) {
    this.token = token;
    this.offer = offer;
    this.ending = new AbortController();
    this.rows = new Map(); // name -> Row
    this.gone = new Map(); // name -> when it was said to be gone
    this.clock = 0; // counts what the page has been told
    this.disks = [];
    this.everything = false;
    this.watch = null; // an AbortController
    this.connection = 0; // number of the watch
  }

  get signal() {
    return this.ending.signal;
  }

  get caller() {
    return this.offer.caller;
  }

  /** A request, with what concerns all of them: whoever is not known any more signs in again. */
  async ask(method, path, options = {}) {
    try {
      return await send(this.token, method, path, { signal: this.signal, ...options });
    } catch (error) {
      if (error instanceof Refusal && error.status === 401 && session === this) {
        signOut(`You have been signed out. ${sentence(error.message || "the token is not accepted any more")}`);
      }
      throw error;
    }
  }

  async read(path) {
    return json(await this.ask("GET", path), this.signal);
  }
}

const isEnd = (error) => error instanceof DOMException && error.name === "AbortError";

const VIEWS = ["view-sign-in", "view-loading", "view-failure", "view-content"];

function view(name) {
  for (const each of VIEWS) $(each).hidden = each !== name;
  for (const id of ["who", "link"]) $(id).hidden = name !== "view-content";
}

function signInView(reason = "") {
  view("view-sign-in");
  show($("sign-in-reason"), reason);
  fault($("token"), "");
  $("token").value = "";
  $("token").focus();
  document.title = "Sign in – Allocator";
}

/** End the session, and forget the token. */
function signOut(reason = "") {
  const ended = session;
  session = null;
  sessionStorage.removeItem(TOKEN);
  if (!reason) sessionStorage.removeItem(UNANSWERED); // else the same user comes back
  ended?.ending.abort();
  ended?.watch?.abort();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  clearTimeout(newsTimer);
  clearTimeout(offerTimer);
  newsOf = new Map();
  for (const list of ["instances", "disks", "create-fields", "attach", "announcer", "about"]) $(list).replaceChildren();
  for (const element of document.querySelectorAll(".subject")) say(element, "");
  $("lost").hidden = true;
  for (const form of document.forms) form.reset();
  asked = null;
  fields = [];
  builtFor = "";
  $("filter").value = "";
  $("everything").checked = false;
  say($("name"), "Allocator");
  say($("caller"), "");
  signInView(reason);
}

/** What is wrong with the token, that can be seen; empty where nothing is. */
function tokenFault(token) {
  if (!token) return "Give a token.";
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(token)) {
    return "This is no token: one has letters, digits and - . _ ~ + / only, without spaces within.";
  }
  return "";
}

async function signIn(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  fault($("token"), tokenFault(token));
  show($("sign-in-reason"), "");
  if (tokenFault(token)) return $("token").focus();
  await once($("sign-in-go"), "Signing in…", async () => {
    try {
      const offer = await json(await send(token, "GET", "v1/offer"));
      sessionStorage.setItem(TOKEN, token);
      begin(token, offer, { isNew: true });
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) {
        fault($("token"), sentence(error.message || "the token is not accepted"));
        $("token").focus();
      } else {
        show($("sign-in-reason"), words(error));
      }
    }
  });
}

/** With the token that this tab has, or by asking for one. */
async function open() {
  const token = sessionStorage.getItem(TOKEN);
  if (!token) return signInView();
  view("view-loading");
  for (let attempt = 1; ; attempt += 1) {
    try {
      return begin(token, await json(await send(token, "GET", "v1/offer")));
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) {
        return signOut(`You have been signed out. ${sentence(error.message)}`);
      }
      await failureView(error, pause(attempt, error));
    }
  }
}

/** Say why nothing can be shown, until it is tried again. */
async function failureView(error, seconds) {
  view("view-failure");
  say($("failure-text"), words(error, true));
  const over = new AbortController();
  const button = $("failure-again");
  button.addEventListener("click", () => over.abort(), { once: true, signal: over.signal });
  for (let left = Math.ceil(seconds); left > 0 && !over.signal.aborted; left -= 1) {
    say($("failure-when"), `The page tries again in ${plural(left, "second")}.`);
    await sleep(1, over.signal);
  }
  say($("failure-when"), "Trying…");
  over.abort();
}

/** Seconds until the next attempt: doubled each time, and spread, so that not all pages come at once. */
function pause(attempt, error) {
  const longest = Math.min(LONGEST_PAUSE, 2 ** (attempt - 1));
  return Math.max(longest * (0.5 + Math.random() / 2), error?.retryAfter ?? 0);
}

function begin(token, offer, { isNew = false } = {}) {
  session = new Session(token, offer);
  session.isNew = isNew;
  $("token").value = "";
  say($("name"), offer.name);
  say($("caller"), offer.caller.name);
  $("disks-part").hidden = !offer.has_disk;
  document.querySelector(".columns").classList.toggle("two", offer.has_disk);
  $("everything-label").hidden = !offer.caller.is_administrator;
  showOffer();
  view("view-loading"); // until all is there: then nothing moves any more
  session.firstDisks = readDisks(session);
  follow(session);
}

/** The first instances are there, or can't be had: show all, once the first disks are too. */
async function reveal(own) {
  await own.firstDisks;
  if (session !== own || !$("view-content").hidden) return;
  view("view-content");
  if (session.isNew) $("main").focus({ preventScroll: true }); // where the form was, that had the focus
}

// ------------------------------------------------------------------------------------------------------- What is offered

function showOffer() {
  const { offer } = session;
  const { limit, used } = offer;
  say($("used"), `${used} of ${limit}`);
  say($("used-rest"), "used by you");
  const [most, now] = [Math.max(limit, 1), Math.min(used, limit)];
  $("meter").setAttribute("aria-valuemax", most);
  $("meter").setAttribute("aria-valuenow", now);
  $("meter").firstElementChild.style.width = `${(100 * now) / most}%`;
  const full = limit === 0 ? "You may have none here." : "All of yours are in use: destroy one to make room for another.";
  say($("used-hint"), used >= limit ? full : `All users together can have ${offer.global_limit}.`);
  show($("create-full"), used >= limit ? full : "");
  document.title = `${offer.name} – ${used} of ${limit} used`;
  const { version, digest, kinds } = offer.template;
  say($("about"), `An instance here is made of: ${kinds.join(", ")}. Template version ${version} (${short(digest)}).`);
}

const short = (digest) => String(digest).replace(/^sha256:/, "").slice(0, 12);

let offerTimer = 0;

/** Read it again soon: how many are used has changed. */
function offerChanged() {
  clearTimeout(offerTimer);
  const asking = session;
  offerTimer = setTimeout(async () => {
    try {
      const offer = await asking.read("v1/offer");
      if (session !== asking) return;
      asking.offer = offer;
      showOffer();
    } catch {
      // the next change reads it again; what is wrong with the connection is said by the watch
    }
  }, 300);
}

// ------------------------------------------------------------------------------------------------------------ The watch

const LINK = { connecting: "Connecting…", live: "Live", lost: "Not live", paused: "Paused" };

function linkIs(state) {
  const link = $("link");
  if (link.dataset.state !== state) link.dataset.state = state;
  say($("link-text"), LINK[state]);
}

/** Follow the instances until the session, or this watch of it, ends. */
async function follow(own) {
  own.watch?.abort();
  const watch = (own.watch = new AbortController());
  const signal = AbortSignal.any([own.signal, watch.signal]);
  let attempt = 0;
  linkIs("connecting");
  while (!signal.aborted) {
    let failed = null;
    try {
      await listen(own, signal, () => {
        attempt = 0;
        linkIs("live");
        if (!$("lost").hidden) found();
      });
    } catch (error) {
      failed = error;
    }
    if (signal.aborted) return;
    if (failed instanceof Refusal && failed.status === 403 && own.everything) {
      return showEverything(false, words(failed));
    }
    reveal(own);
    attempt += 1;
    if (attempt > 1 || failed) await lost(pause(attempt, failed), failed, signal);
    else await sleep(pause(attempt), signal); // an orderly end
  }
}

let hiddenTimer = 0;

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (!session) return;
  if (!document.hidden && session.watch.signal.aborted) follow(session);
  if (document.hidden) hiddenTimer = setTimeout(pauseWatch, HIDDEN_SECONDS * 1000);
});

function pauseWatch() {
  session?.watch.abort();
  $("lost").hidden = true;
  linkIs("paused");
}

/** Say that the connection is lost, and why, and count down; a click, or a network that is back, ends it. */
async function lost(seconds, failed, signal) {
  const over = new AbortController();
  const now = () => over.abort();
  $("lost-now").addEventListener("click", now, { signal: over.signal });
  addEventListener("online", now, { signal: over.signal });
  signal.addEventListener("abort", now, { once: true });
  linkIs("lost");
  say($("lost-why"), failed instanceof Refusal ? words(failed, true) : "");
  if ($("lost").hidden) announce("The connection is lost: what you see may be out of date.");
  $("lost").hidden = false;
  for (let left = Math.ceil(seconds); left > 0 && !over.signal.aborted; left -= 1) {
    say($("lost-when"), `Trying again in ${plural(left, "second")}.`);
    await sleep(1, over.signal);
  }
  over.abort();
  say($("lost-when"), "Trying…");
  if (!signal.aborted) linkIs("connecting");
}

/** It is back. */
function found() {
  const hadFocus = $("lost").contains(document.activeElement);
  $("lost").hidden = true;
  announce("Live again.");
  if (hadFocus) $("main").focus({ preventScroll: true });
}

/** One connection, until it ends. `isLive` is called when all there is has been told. */
async function listen(own, signal, isLive) {
  const connection = (own.connection += 1);
  const since = own.clock;
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENT_SECONDS * 1000);
  };
  heard();
  try {
    const path = `v1/instances?watch=true${own.everything ? "&all=true" : ""}`;
    const both = AbortSignal.any([signal, silence.signal]);
    const answer = await own.ask("GET", path, { signal: both, forever: true });
    let bookmarks = 0;
    for await (const change of lines(answer.body)) {
      heard();
      if (change.type === "BOOKMARK") {
        // What this connection has not told is gone; but an answer that is newer than it may be newer than what it knows.
        for (const row of [...own.rows.values()]) {
          if (row.connection !== connection && (bookmarks > 0 || row.answered <= since)) remove(own, row.name);
        }
        bookmarks += 1;
        if (bookmarks === 1) {
          $("list-loading").hidden = true;
          own.isListed = true;
          arrange(own);
          reveal(own);
          offerChanged();
          isLive();
        }
      } else if (change.type === "DELETED") {
        remove(own, change.instance.name);
      } else if (change.instance) {
        put(own, change.instance, { connection, isNews: bookmarks > 0 });
      }
    }
  } finally {
    clearTimeout(timer);
    silence.abort(); // also of a connection whose other end has only said nonsense
  }
}

/** The JSON documents of a stream, one a line. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => { throw new NoAnswer(); }); // it broke off
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part.trim()) yield JSON.parse(part);
  }
}

function showEverything(everything, problem = "") {
  session.everything = everything;
  session.isListed = false;
  $("everything").checked = everything;
  for (const name of [...session.rows.keys()]) session.rows.get(name).element.remove();
  session.rows.clear();
  $("list-loading").hidden = false;
  show($("list-problem"), problem);
  arrange(session);
  follow(session);
}

// ----------------------------------------------------------------------------------------------------------- Instances

const isOwn = (own, instance) => instance.owner === own.caller.name;

/** Show an instance as it is told. `connection`: of the watch that tells it; none: it is an answer. */
function put(own, instance, { connection = 0, isNews = true } = {}) {
  let row = own.rows.get(instance.name);
  const before = row?.instance;
  if (!row) {
    row = new Row(own, instance);
    own.rows.set(instance.name, row);
  }
  own.clock += 1;
  if (connection) row.connection = connection;
  else row.answered = own.clock;
  if (JSON.stringify(before) === JSON.stringify(instance) && before) return row;
  row.update(instance);
  if (!before && own.isListed) arrange(own);
  else if (own.isListed) filterRow(own, row);
  if (isNews && before?.phase !== instance.phase) news(own, row, before ? instance.phase : "new");
  if (isNews && !before && isOwn(own, instance)) offerChanged();
  return row;
}

/** The same, of an answer to something that was asked for at `since`: it may be older than what the watch has told. */
function putAnswer(own, instance, since) {
  if ((own.gone.get(instance.name) ?? -1) > since) return null;
  return put(own, instance);
}

function remove(own, name) {
  own.clock += 1;
  own.gone.set(name, own.clock);
  const row = own.rows.get(name);
  if (!row) return;
  own.rows.delete(name);
  const hadFocus = row.element.contains(document.activeElement);
  const next = row.element.nextElementSibling ?? row.element.previousElementSibling;
  row.close();
  row.element.remove();
  if (hadFocus) (next?.querySelector("h3 button") ?? $("new")).focus();
  if (own.isListed) arrange(own);
  news(own, row, "gone");
  if (isOwn(own, row.instance)) {
    offerChanged();
    readDisks(own);
  }
}

/** Own ones first; the newest first. */
function compare(own, one, other) {
  const [a, b] = [one.instance, other.instance];
  return (
    Number(isOwn(own, b)) - Number(isOwn(own, a)) ||
    (Date.parse(b.created) || 0) - (Date.parse(a.created) || 0) ||
    (a.name < b.name ? -1 : 1)
  );
}

/** Put the rows into their order, without moving those that are in it, and say so if there are none. */
function arrange(own) {
  const rows = [...own.rows.values()].sort((one, other) => compare(own, one, other));
  const list = $("instances");
  let place = list.firstElementChild;
  for (const row of rows) {
    if (row.element === place) place = place.nextElementSibling;
    else list.insertBefore(row.element, place);
  }
  $("filter-field").hidden = rows.length < FILTER_FROM && !$("filter").value;
  filterAll(own);
}

function filterAll(own) {
  for (const row of own.rows.values()) filterRow(own, row);
  const hidden = [...own.rows.values()].filter((row) => row.element.hidden).length;
  const isFiltered = own.rows.size > 0 && hidden === own.rows.size;
  $("list-empty").hidden = !own.isListed || (own.rows.size > 0 && !isFiltered);
  if (isFiltered) {
    say($("list-empty-text"), "None of them matches.");
    say($("list-empty-hint"), `There are ${own.rows.size} without the filter.`);
  } else {
    say($("list-empty-text"), own.everything ? "Nobody has an instance." : "You have no instance yet.");
    say($("list-empty-hint"), "What you create is shown here, and what others share with you.");
  }
}

function filterRow(own, row) {
  const wanted = $("filter").value.trim().toLowerCase();
  const { name, owner, phase } = row.instance;
  row.element.hidden = wanted !== "" && ![name, owner, phase].some((text) => text.toLowerCase().includes(wanted));
}

let newsOf = new Map();
let newsTimer = 0;

/** Announce what has changed, in one go: of many only how many. */
function news(own, row, what) {
  if (!own.isListed) return;
  newsOf.set(row.name, what === "new" ? "is new" : what === "gone" ? "is gone" : `is ${what}`);
  clearTimeout(newsTimer);
  newsTimer = setTimeout(() => {
    const told = [...newsOf].map(([name, text]) => `${name} ${text}.`);
    announce(told.length <= 3 ? told.join(" ") : `${told.length} instances have changed.`);
    newsOf = new Map();
  }, 400);
}

/** An instance in the list: a line, and what unfolds below it. */
class Row {
  constructor(own, instance) {
    this.own = own;
    this.name = instance.name;
    this.connection = 0;
    this.answered = 0;
    const id = `instance-${instance.name}`;
    this.button = make("button", { type: "button", id, "aria-expanded": "false" }, instance.name);
    this.phase = make("span");
    this.owner = make("span");
    this.meta = make("p", { className: "meta" }, this.owner, "created ", timeOf(instance.created));
    this.message = make("p", { className: "said" });
    const phase = make("p", { className: "phase" }, make("span", { className: "dot", "aria-hidden": "true" }), this.phase);
    const line = make("div", { className: "row" }, make("h3", {}, this.button), this.meta, phase, this.message);
    this.element = make("li", {}, line);
    this.button.addEventListener("click", () => (this.details ? this.close() : this.open()));
  }

  update(instance) {
    this.instance = instance;
    this.element.dataset.mood = MOODS[instance.phase] ?? "busy";
    say(this.phase, instance.phase);
    say(this.message, instance.message);
    const whose = this.own.everything ? `of ${instance.owner || "nobody yet"}` : `shared by ${instance.owner}`;
    say(this.owner, isOwn(this.own, instance) ? "" : `${whose}, `);
    this.details?.update(instance);
  }

  open() {
    for (const other of this.own.rows.values()) other.close();
    this.details = new Details(this);
    this.element.append(this.details.element);
    this.button.setAttribute("aria-expanded", "true");
    this.button.setAttribute("aria-controls", this.details.element.id);
    this.details.update(this.instance);
  }

  close() {
    if (!this.details) return;
    this.details.end();
    this.details.element.remove();
    this.details = null;
    this.button.setAttribute("aria-expanded", "false");
    this.button.removeAttribute("aria-controls");
  }
}

/** What is shown of the instance that is open. */
class Details {
  constructor(row) {
    this.row = row;
    this.own = row.own;
    this.ending = new AbortController();
    const named = (text) => [text, make("span", { className: "unseen" }, ` ${row.name}`)];
    this.toggle = make("button", { type: "button", className: "small" });
    this.toggleText = document.createTextNode("");
    this.toggle.append(this.toggleText, named("")[1]);
    this.reset = make("button", { type: "button", className: "small" }, ...named("Reset…"));
    this.destroy = make("button", { type: "button", className: "small risky" }, ...named("Destroy…"));
    this.limits = make("p", { className: "hint" });
    this.problem = make("p", { className: "problem", hidden: true });
    this.problem.setAttribute("role", "alert");
    this.facts = make("dl", { className: "facts" });
    this.endpoints = make("ul");
    this.parameters = make("dl", { className: "facts" });
    this.objects = make("dl", { className: "facts objects" });
    this.events = make("ol", { className: "events" });
    this.eventsText = make("p", { className: "hint" }, "Loading…");
    const part = (title, ...content) => make("section", {}, make("h4", {}, title), ...content);
    this.element = make(
      "div",
      { className: "open", id: `details-${row.name}` },
      make("div", {}, make("div", { className: "buttons" }, this.toggle, this.reset, this.destroy, this.limits)),
      this.problem,
      make(
        "div",
        { className: "halves" },
        make("div", {}, part("About", this.facts), part("Parameters", this.parameters)),
        make("div", {}, part("Endpoints", this.endpoints), part("Objects", this.objects)),
      ),
      part("Events", make("div", { "aria-live": "off" }, this.eventsText, this.events)),
    );
    this.toggle.addEventListener("click", () => this.suspendOrResume());
    this.reset.addEventListener("click", () => askReset(this.row));
    this.destroy.addEventListener("click", () => askDestroy(this.row));
  }

  end() {
    clearTimeout(this.timer);
    this.ending.abort();
  }

  update(instance) {
    const { offer } = this.own;
    const isMine = isOwn(this.own, instance) || offer.caller.is_administrator;
    const isGoing = instance.phase === "Destroying";
    if (!this.toggle.hasAttribute("aria-disabled")) this.toggleText.data = instance.suspended ? "Resume" : "Suspend";
    const hadFocus = this.element.contains(document.activeElement);
    this.toggle.hidden = isGoing;
    this.reset.hidden = isGoing || !isMine || !hasDisk(instance);
    this.destroy.hidden = isGoing || !isMine;
    if (hadFocus && !this.element.contains(document.activeElement)) this.row.button.focus();
    if (isGoing) show(this.limits, "It is being destroyed.");
    else show(this.limits, isMine ? "" : "Only its owner can reset or destroy it.");
    this.fill(this.facts, () => factsOf(instance, offer));
    this.fill(this.endpoints, () => endpointsOf(instance));
    this.fill(this.parameters, () => parametersOf(instance));
    this.fill(this.objects, () => objectsOf(instance));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.readEvents(), this.hasEvents ? 250 : 0);
  }

  /** Fill in again what has become different. */
  fill(list, content) {
    const made = content();
    const text = made.map((each) => each.textContent).join("\n");
    if (list.dataset.filled === text) return;
    list.dataset.filled = text;
    list.replaceChildren(...made);
  }

  async readEvents() {
    try {
      const path = `${instancePath(this.row.name)}/events`;
      const answer = await this.own.ask("GET", path, { signal: AbortSignal.any([this.own.signal, this.ending.signal]) });
      const { items } = await json(answer, this.ending.signal);
      if (this.ending.signal.aborted) return;
      this.hasEvents = true;
      show(this.eventsText, items.length ? "" : "The cluster has told none.");
      this.events.replaceChildren(...items.map(eventOf));
    } catch (error) {
      if (isEnd(error) || this.ending.signal.aborted) return;
      show(this.eventsText, `The events can't be shown. ${words(error)}`);
    }
  }

  async suspendOrResume() {
    const { instance } = this.row;
    const [verb, busy] = instance.suspended ? ["resume", "Resuming…"] : ["suspend", "Suspending…"];
    const since = this.own.clock;
    show(this.problem, "");
    await once(this.toggle, busy, async () => {
      try {
        const answer = await this.own.ask("POST", `${instancePath(this.row.name)}:${verb}`);
        putAnswer(this.own, await json(answer), since);
      } catch (error) {
        if (!isEnd(error)) show(this.problem, words(error));
      }
    }, this.toggleText);
    this.toggleText.data = this.row.instance.suspended ? "Resume" : "Suspend";
  }
}

const hasDisk = (instance) => instance.objects.some((each) => each.kind === "PersistentVolumeClaim");

function fact(name, ...content) {
  return [make("dt", {}, name), make("dd", {}, ...content)];
}

const none = () => [make("dt", {}, "None"), make("dd")];

function factsOf(instance, offer) {
  const { users, groups } = instance.access;
  const shared = [...users, ...groups.map((group) => `group ${group}`)];
  const isOld = instance.template !== offer.template.digest;
  const facts = [
    ...fact("Owner", instance.owner || "nobody yet"),
    ...fact("Created", full(instance.created)),
    ...fact("Shared with", shared.length ? shared.join(", ") : "nobody"),
  ];
  if (hasDisk(instance)) {
    facts.push(...fact("When destroyed", instance.storage === "retain" ? "its disk is kept" : "its disk is deleted"));
  }
  if (instance.attach) facts.push(...fact("Attached disk", make("code", {}, instance.attach)));
  if (instance.resets) facts.push(...fact("Reset", plural(instance.resets, "time")));
  facts.push(...fact("Template", make("code", {}, short(instance.template)), isOld ? ", an older one than today's" : ""));
  return facts;
}

function parametersOf(instance) {
  const names = Object.keys(instance.parameters).sort();
  if (!names.length) return none();
  return names.flatMap((name) => fact(name, spell(instance.parameters[name])));
}

const spell = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function endpointsOf(instance) {
  const endpoints = instance.endpoints.map(({ service, port, name }) => {
    const address = `${service}:${port}`;
    const item = make("li", { className: "copyable" }, make("code", {}, address));
    if (navigator.clipboard) item.append(copyButton(address));
    if (name) item.append(make("span", { className: "what" }, name));
    return item;
  });
  return endpoints.length ? endpoints : [make("li", { className: "hint" }, "None")];
}

function copyButton(text) {
  const button = make("button", { type: "button", className: "small" }, "Copy", make("span", { className: "unseen" }, ` ${text}`));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce(`${text} is copied.`);
      button.firstChild.data = "Copied";
    } catch {
      announce("The browser does not let this page copy.");
      button.firstChild.data = "Not copied";
    }
    setTimeout(() => (button.firstChild.data = "Copy"), 2000);
  });
  return button;
}

function objectsOf(instance) {
  if (!instance.objects.length) return none();
  return instance.objects.flatMap(({ kind, name }) => fact(kind, make("code", {}, name)));
}

function eventOf(event) {
  const isWarning = event.type === "Warning";
  const head = make("p", { className: "head" });
  head.append(make("strong", { className: isWarning ? "warning" : "" }, isWarning ? `Warning: ${event.reason}` : event.reason));
  head.append(make("code", {}, event.object));
  const when = make("span", { className: "hint" });
  if (event.time) when.append(timeOf(event.time));
  if (event.count > 1) when.append(`, ${event.count} times`);
  head.append(when);
  return make("li", { "data-type": event.type }, head, make("p", {}, event.message));
}

// -------------------------------------------------------------------------------------------------------------- Disks

async function readDisks(own) {
  if (!own.offer.has_disk) return;
  try {
    const { items } = await own.read("v1/disks");
    if (session !== own) return;
    own.disks = items;
    show($("disks-problem"), "");
    showDisks(own);
  } catch (error) {
    if (!isEnd(error)) show($("disks-problem"), `The disks can't be shown. ${words(error)}`);
  }
}

function showDisks(own) {
  const list = $("disks");
  const shown = new Map([...list.children].map((item) => [item.dataset.name, item]));
  for (const [name, item] of shown) {
    if (own.disks.some((disk) => disk.name === name)) continue;
    const hadFocus = item.contains(document.activeElement);
    item.remove();
    if (hadFocus) (list.querySelector("button") ?? $("new")).focus();
  }
  for (const disk of own.disks) if (!shown.has(disk.name)) list.append(diskRow(own, disk));
  $("disks-empty").hidden = own.disks.length > 0;
  const attach = $("attach");
  const chosen = attach.value;
  attach.replaceChildren(new Option("A new disk", ""));
  for (const disk of own.disks) attach.append(new Option([disk.name, disk.size].filter(Boolean).join(", "), disk.name));
  attach.value = own.disks.some((disk) => disk.name === chosen) ? chosen : "";
  $("attach-field").hidden = own.disks.length === 0;
}

function diskRow(own, disk) {
  const button = make("button", { type: "button", className: "small risky" }, "Remove…", make("span", { className: "unseen" }, ` ${disk.name}`));
  button.addEventListener("click", () => askRemove(own, disk));
  const about = make("p", { className: "hint" }, [disk.size, disk.instance && `of ${disk.instance}`].filter(Boolean).join(" "));
  if (disk.created) about.append(about.textContent ? ", made " : "made ", timeOf(disk.created));
  const item = make("li", { className: "disk", "data-name": disk.name }, make("code", {}, disk.name), about, button);
  return item;
}

// -------------------------------------------------------------------------------------------------------------- Dialogs

/** Do something, once: the button tells that it is being done, keeps the focus, and does nothing meanwhile. */
async function once(button, busy, work, text = button.firstChild) {
  if (button.hasAttribute("aria-disabled")) return;
  const before = text.data;
  button.setAttribute("aria-disabled", "true");
  text.data = busy;
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
    text.data = before;
  }
}

/** Say what is wrong with a control; without text: nothing is. */
function fault(control, text) {
  show($(`${control.id}-error`), text);
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

let asked = null; // what the dialog that is open is about

function ask(id, subject, about) {
  asked = about;
  const dialog = $(id);
  for (const element of dialog.querySelectorAll(".subject")) say(element, subject);
  show($(`${id}-problem`), "");
  dialog.showModal();
}

/** Carry out what a dialog asks for, and close it; a refusal is shown in it. */
function answered(id, busy, work) {
  const about = asked;
  return once($(`${id}-go`), busy, async () => {
    show($(`${id}-problem`), "");
    try {
      await work(about);
      if (asked === about) $(id).close();
      const back = document.activeElement; // what had opened it may be hidden by now
      if (back === document.body || !back.checkVisibility()) about.opener?.focus();
    } catch (error) {
      if (!isEnd(error)) show($(`${id}-problem`), words(error));
    }
  });
}

function askDestroy(row) {
  const { instance } = row;
  $("destroy-disk").hidden = !hasDisk(instance);
  for (const radio of document.querySelectorAll("[name=keep]")) radio.checked = radio.value === instance.storage;
  ask("destroy", row.name, { row, opener: row.button });
}

$("destroy-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answered("destroy", "Destroying…", async ({ row }) => {
    const own = row.own;
    const since = own.clock;
    const storage = hasDisk(row.instance) ? `?storage=${document.querySelector("[name=keep]:checked").value}` : "";
    try {
      putAnswer(own, await json(await own.ask("DELETE", instancePath(row.name) + storage)), since);
    } catch (error) {
      if (!(error instanceof Refusal && error.word === "not-found")) throw error;
      remove(own, row.name); // somebody was faster
    }
  });
});

function askReset(row) {
  $("reset-name").value = "";
  fault($("reset-name"), "");
  ask("reset", row.name, { row, seen: row.instance.resets, opener: row.button });
}

$("reset-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const isNamed = $("reset-name").value.trim() === asked.row.name;
  fault($("reset-name"), isNamed ? "" : `Type ${asked.row.name} to reset it.`);
  if (!isNamed) return $("reset-name").focus();
  answered("reset", "Resetting…", async ({ row, seen }) => {
    const since = row.own.clock;
    const body = JSON.stringify({ resets: seen }); // what was seen: sent again, it is reset once
    putAnswer(row.own, await json(await row.own.ask("POST", `${instancePath(row.name)}:reset`, { body })), since);
  });
});

function askRemove(own, disk) {
  ask("remove", disk.name, { own, disk });
}

$("remove-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answered("remove", "Removing…", async ({ own, disk }) => {
    try {
      await own.ask("DELETE", `v1/disks/${encodeURIComponent(disk.name)}`);
    } catch (error) {
      if (!(error instanceof Refusal && error.word === "not-found")) throw error;
    }
    own.disks = own.disks.filter((each) => each.name !== disk.name);
    $("remove").close(); // so that the focus is back in the list before the disk leaves it
    showDisks(own);
    announce(`Disk ${disk.name} is removed.`);
  });
});

// ------------------------------------------------------------------------------------------------------------- Creating

let builtFor = ""; // digest of the template that the form is made for
let fields = [];

function askCreate() {
  const { offer } = session;
  if (builtFor !== offer.template.digest) {
    fields = Object.entries(offer.parameters).map(([name, schema], number) => new Field(name, schema, number));
    $("create-fields").replaceChildren(...fields.map((field) => field.element));
    $("storage-field").hidden = !offer.has_disk;
    builtFor = offer.template.digest;
  }
  readDisks(session);
  $("create").showModal();
  (fields[0]?.control ?? $("create-title")).focus();
}

/** What is wrong with a value, for people. */
class Wrong extends Error {}

/** One parameter, as its schema has it. */
class Field {
  constructor(name, schema, number) {
    this.name = name;
    this.schema = schema;
    this.hasDefault = schema.default !== undefined && schema.default !== null;
    const id = `parameter-${number}`;
    this.control = this.makeControl(id);
    this.control.dataset.parameter = name;
    const isNeeded = !this.hasDefault && schema.type !== "boolean";
    const told = [schema.description ?? "", this.bounds()].filter(Boolean).map((text) => sentence(text)).join(" ");
    const hint = make("p", { className: "hint", id: `${id}-hint`, hidden: told === "" }, told);
    const error = make("p", { className: "error", id: `${id}-error`, hidden: true });
    this.control.setAttribute("aria-describedby", `${hint.id} ${error.id}`);
    if (isNeeded) this.control.required = true;
    if (schema.type === "boolean") {
      const label = make("label", { className: "choice" }, this.control, name);
      this.element = make("div", { className: "field" }, label, hint, error);
    } else {
      const label = make("label", { htmlFor: id }, name);
      if (isNeeded) label.append(make("span", { className: "optional" }, " (required)"));
      this.element = make("div", { className: "field" }, label, hint, this.control, error);
    }
    this.initial = this.raw;
    this.control.addEventListener("change", () => this.control.hasAttribute("aria-invalid") && fault(this.control, ""));
  }

  makeControl(id) {
    const { type, minimum, maximum, maxLength } = this.schema;
    const given = this.hasDefault ? this.schema.default : "";
    if (this.schema.enum) return this.makeChoice(id);
    if (type === "boolean") return make("input", { type: "checkbox", id, checked: given === true });
    if (type === "string") {
      const isLong = maxLength >= 1024 || String(given).includes("\n");
      const control = isLong ? make("textarea", { id, rows: 3 }) : make("input", { type: "text", id, autocomplete: "off" });
      control.spellcheck = false;
      control.value = given;
      return control;
    }
    const control = make("input", { type: "number", id, step: type === "integer" ? "1" : "any", autocomplete: "off" });
    if (minimum !== undefined) control.min = minimum;
    if (maximum !== undefined) control.max = maximum;
    control.value = given;
    return control;
  }

  makeChoice(id) {
    const select = make("select", { id });
    if (!this.hasDefault) select.append(new Option("Choose…", ""));
    this.schema.enum.forEach((value, number) => select.append(new Option(spell(value), String(number))));
    select.value = this.hasDefault ? String(this.schema.enum.indexOf(this.schema.default)) : "";
    return select;
  }

  /** What can be given, in words. */
  bounds() {
    const { type, minimum, maximum, minLength, maxLength, pattern } = this.schema;
    if (this.schema.enum) return "";
    const told = [];
    if (type === "integer") told.push("a whole number");
    if (minimum !== undefined && maximum !== undefined) told.push(`from ${minimum} to ${maximum}`);
    else if (minimum !== undefined) told.push(`at least ${minimum}`);
    else if (maximum !== undefined) told.push(`at most ${maximum}`);
    if (minLength && maxLength !== undefined) told.push(`${minLength} to ${maxLength} characters`);
    else if (minLength) told.push(`at least ${plural(minLength, "character")}`);
    else if (maxLength !== undefined) told.push(`at most ${plural(maxLength, "character")}`);
    if (pattern) told.push(`must match ${pattern}`);
    return told.length === 1 && type === "integer" ? "a whole number" : told.join(type === "string" ? ", " : " ");
  }

  get raw() {
    return this.control.type === "checkbox" ? this.control.checked : this.control.value;
  }

  /** The value; undefined: the template's default, which is not ours to repeat. Raises Wrong. */
  read() {
    const { type } = this.schema;
    if (this.hasDefault && this.raw === this.initial) return undefined;
    if (type === "boolean" && !this.schema.enum) return this.control.checked;
    if (this.control.validity.badInput) throw new Wrong("This is no number.");
    if (this.raw === "" && !this.hasDefault) throw new Wrong(this.schema.enum ? "Choose one." : "Give a value.");
    if (this.schema.enum) return this.schema.enum[Number(this.raw)];
    if (type === "string") return this.readText();
    if (this.raw === "") return undefined;
    const value = Number(this.raw);
    if (type === "integer" && !Number.isInteger(value)) throw new Wrong("Give a whole number.");
    if (type === "integer" && (value < SAFE.min || value > SAFE.max)) {
      throw new Wrong("So large a number would not be exact here: give it by the command line.");
    }
    if (value < this.schema.minimum) throw new Wrong(`Give at least ${this.schema.minimum}.`);
    if (value > this.schema.maximum) throw new Wrong(`Give at most ${this.schema.maximum}.`);
    return value;
  }

  readText() {
    const { minLength = 0, maxLength, pattern } = this.schema;
    const text = this.raw;
    const length = [...text].length; // JSON Schema counts characters, not UTF-16
    if (length < minLength) throw new Wrong(`Give at least ${plural(minLength, "character")}: it has ${length}.`);
    if (length > maxLength) throw new Wrong(`Give at most ${plural(maxLength, "character")}: it has ${length}.`);
    if (pattern && !matches(pattern, text)) throw new Wrong(`Give text that matches ${pattern}.`);
    return text;
  }
}

/** Where the browser can't tell, the server will. */
function matches(pattern, text) {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true;
  }
}

/** The body of the request; null where something is wrong, which is said at its place then. */
function wish() {
  const parameters = {};
  let wrong = null;
  for (const field of fields) {
    let said = "";
    try {
      const value = field.read();
      if (value !== undefined) parameters[field.name] = value;
    } catch (reason) {
      if (!(reason instanceof Wrong)) throw reason;
      said = reason.message;
      wrong ??= field.control;
    }
    fault(field.control, said);
  }
  if (wrong) {
    wrong.focus();
    return null;
  }
  const names = (id) => $(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
  const body = { parameters, access: { users: names("share-users"), groups: names("share-groups") } };
  if (session.offer.has_disk) {
    body.storage = document.querySelector("[name=storage]:checked").value;
    if (!$("attach-field").hidden && $("attach").value) body.attach = $("attach").value;
  }
  return JSON.stringify(body);
}

/** The key of a request: the one of the same request before, if no answer to that ever came. */
function keyOf(body) {
  const who = session.caller.name;
  const before = JSON.parse(sessionStorage.getItem(UNANSWERED) ?? "null");
  if (before?.body === body && before.who === who) return before.key;
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem(UNANSWERED, JSON.stringify({ key, body, who }));
  return key;
}

$("create-form").addEventListener("submit", (event) => {
  event.preventDefault();
  once($("create-go"), "Creating…", create);
});

async function create() {
  const own = session;
  show($("create-problem"), "");
  for (const id of ["attach", "share-users", "share-groups"]) fault($(id), "");
  const body = wish();
  if (body === null) return;
  const since = own.clock;
  try {
    const answer = await own.ask("POST", "v1/instances", { body, headers: { "Idempotency-Key": keyOf(body) } });
    const instance = await json(answer, own.signal);
    sessionStorage.removeItem(UNANSWERED);
    created(own, instance, since);
  } catch (error) {
    if (isEnd(error)) return;
    if (!error.isOpen) sessionStorage.removeItem(UNANSWERED);
    if (session === own) refused(error);
  }
}

function created(own, instance, since) {
  const row = putAnswer(own, instance, since);
  $("create-form").reset();
  builtFor = ""; // made anew the next time, with its defaults
  $("create").close();
  offerChanged();
  if (instance.attach) readDisks(own);
  if (!row) return;
  $("filter").value = "";
  arrange(own);
  if (!row.details) row.open();
  row.button.focus();
  row.element.scrollIntoView({ block: "nearest" });
}

/** Show a refusal at the field that it is about, else above the buttons. */
function refused(error) {
  if (error instanceof Refusal) {
    const place = placeOf(error);
    if (place) {
      fault(place, words(error));
      if (place.closest("details")) place.closest("details").open = true;
      return place.focus();
    }
  }
  const isOpen = error.isOpen && !(error instanceof Refusal);
  const rest = " Perhaps it was made all the same. Send it again as it is: the two can't make more than one.";
  show($("create-problem"), isOpen ? `No answer came from the service.${rest}` : words(error));
  $("create-problem").scrollIntoView({ block: "nearest" });
}

function placeOf(error) {
  const where = String(error.problem.field ?? error.message);
  const parameter = /^parameters\.([A-Za-z_][A-Za-z0-9_]*)/.exec(where);
  if (parameter) return fields.find((field) => field.name === parameter[1])?.control;
  if (/^attach\b/.test(where)) return $("attach-field").hidden ? undefined : $("attach");
  if (/^access\.users\b/.test(where)) return $("share-users");
  if (/^access\.groups\b/.test(where)) return $("share-groups");
  return undefined;
}

// ---------------------------------------------------------------------------------------------------------------- Begin

$("sign-in").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", () => signOut());
$("new").addEventListener("click", askCreate);
$("everything").addEventListener("change", () => showEverything($("everything").checked));
$("filter").addEventListener("input", () => filterAll(session));
addEventListener("focus", () => session && offerChanged()); // the limit may have been changed
open();
