"use strict";
const one = (id) => document.getElementById(id);
const filter = () => {
  const family = one("family").value, result = one("result").value, words = one("words").value.toLowerCase();
  let shown = 0;
  for (const episode of document.querySelectorAll("details.episode")) {
    const visible = (!family || episode.dataset.family === family) && (!result || episode.dataset.result === result)
      && (!words || episode.textContent.toLowerCase().includes(words));
    episode.hidden = !visible;
    shown += visible;
  }
  one("shown").textContent = shown;
};
for (const id of ["family", "result", "words"]) one(id).addEventListener("input", filter);
one("open").addEventListener("click", () => {
  const visible = [...document.querySelectorAll("details.episode:not([hidden])")];
  const open = visible.some((episode) => !episode.open);
  for (const episode of visible) episode.open = open;
});
filter();
