// A page of a run that is under way reloads itself, and is then as it was left.

const IDLE_MS = 8000;
const live = byId("live");
// What the page was left with: filters, the axis of curves, how far down.
const left = history.state ?? {};
let lastUse = -Infinity;

function remember(more) {
  Object.assign(left, more);
  try {
    history.replaceState(left, "");
  } catch {
    // A page in a frame may have no history; it then begins anew.
  }
}

function startReloading() {
  for (const input of document.querySelectorAll('input[name="axis"]')) {
    if (left.axis === input.value) input.checked = true;
    input.addEventListener("change", () => remember({ axis: input.value }));
  }
  for (const kind of ["pointerdown", "keydown", "wheel", "touchmove", "input"]) {
    addEventListener(kind, () => { lastUse = performance.now(); }, { passive: true });
  }
  if (!live) return;
  setInterval(() => {
    const now = performance.now();
    if (!document.documentElement.dataset.ready) return;
    const isRead = document.visibilityState !== "visible" || now - lastUse < IDLE_MS || String(getSelection());
    if (isRead || now < 1000 * live.dataset.seconds) return;
    remember({ y: scrollY });
    location.reload();
  }, 500);
}

// Once everything is there again: the browser itself cannot know how far down that is.
function scrollBack() {
  if (live && left.y) scrollTo({ top: left.y, behavior: "instant" });
}

startReloading();
