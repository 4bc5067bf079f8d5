(function () {
  var root = document.documentElement, button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function now() { return root.dataset.theme || (dark.matches ? "dark" : "light"); }
  function label() { button.textContent = now() === "dark" ? "Light" : "Dark"; }
  try { var kept = localStorage.getItem("qwenhost-theme"); if (kept) { root.dataset.theme = kept; } } catch (e) { /* private mode */ }
  button.hidden = false;
  label();
  dark.addEventListener("change", label);
  button.addEventListener("click", function () {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    try { localStorage.setItem("qwenhost-theme", root.dataset.theme); } catch (e) { /* private mode */ }
    label();
  });
  var opened = [];
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open])").forEach(function (d) { d.open = true; opened.push(d); });
  });
  window.addEventListener("afterprint", function () { opened.splice(0).forEach(function (d) { d.open = false; }); });
})();
