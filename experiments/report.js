(() => {
  "use strict";
  // Hover texts of marks.
  const tip = document.getElementById("tip");
  const show = (event) => {
    const mark = event.target.closest && event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
  };
  addEventListener("pointermove", show, { passive: true });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Videos keep their bytes in data-src until they come near the window, so that long pages open at once.
  const load = (video) => { if (video.dataset.src) { video.src = video.dataset.src; delete video.dataset.src; } };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { load(entry.target); near.unobserve(entry.target); }
  }, { rootMargin: "600px" });
  document.querySelectorAll("video[data-src]").forEach((video) => near.observe(video));

  // A card's curves share one cursor with its video: playing moves it, pointing at a curve scrubs the video.
  for (const card of document.querySelectorAll(".card")) {
    const curves = [...card.querySelectorAll("svg.curve")].map((svg) => ({
      svg, values: svg.dataset.values.split(","), line: svg.querySelector(".cursor"),
      dot: svg.querySelector(".cursor-dot"), out: svg.querySelector(".readout"),
    }));
    const video = card.querySelector("video");
    const fps = video ? Number(video.dataset.fps) : 0;
    const place = (step) => {
      for (const { svg, values, line, dot, out } of curves) {
        const d = svg.dataset, k = Math.max(0, Math.min(step, values.length - 1)), value = values[k];
        const x = Number(d.x0) + (d.x1 - d.x0) * k / d.n;
        line.classList.remove("idle"); dot.classList.toggle("idle", value === "");
        line.setAttribute("x1", x); line.setAttribute("x2", x);
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", Number(d.y0) + (d.y1 - d.y0) * value / d.high);
        out.textContent = `step ${k}: ${value === "" ? "unknown" : value + (d.unit ? " " + d.unit : "")}`;
      }
    };
    for (const { svg, values } of curves) svg.addEventListener("pointermove", (event) => {
      const d = svg.dataset, box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const step = Math.max(0, Math.min(Math.round((x - d.x0) / (d.x1 - d.x0) * d.n), values.length - 1));
      place(step);
      if (video) { load(video); video.pause(); if (video.readyState) video.currentTime = (step + 0.5) / fps; }
    });
    if (video) {
      let request = 0;
      const follow = () => { place(Math.floor(video.currentTime * fps + 1e-3)); if (!video.paused && !video.ended) request = requestAnimationFrame(follow); };
      video.addEventListener("play", () => { cancelAnimationFrame(request); follow(); });
    }
  }

  // Order and choice of the cards.
  const controls = document.querySelector(".controls"), cards = document.querySelector(".cards");
  if (!controls || !cards || cards.children.length < 2) return;
  controls.hidden = false;
  controls.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const kind = button.dataset.show ? "show" : "order";
    controls.querySelectorAll(`[data-${kind}]`).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    const all = [...cards.children];
    if (kind === "show") for (const card of all) {
      const strict = card.dataset.outcome === "strict";
      card.hidden = button.dataset.show === "strict" ? !strict : button.dataset.show === "short" ? strict : false;
    } else cards.append(...all.sort((a, b) => a.dataset[button.dataset.order] - b.dataset[button.dataset.order]));
  });
})();
