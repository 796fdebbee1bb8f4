"use strict";
(() => {
  const sizes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const short = (v) => String(Number(v.toPrecision(4)));
  const scaled = (v, table) => { for (const [size, unit] of table) if (Math.abs(v) >= size) return short(v / size) + " " + unit; return short(v) + " "; };
  const binary = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
  const since = (s) => {
    const w = Math.round(s), d = Math.floor(w / 86400), h = Math.floor(w / 3600) % 24, m = Math.floor(w / 60) % 60;
    if (d) return d + " d " + h + " h";
    if (h) return h + " h " + String(m).padStart(2, "0") + " min";
    return m ? m + " min " + w % 60 + " s" : w + " s";
  };
  const words = {
    seconds: (v) => (v < 1 ? short(v * 1000) + " ms" : short(v) + " s"), bytes: (v) => scaled(v, binary),
    bytes_per_second: (v) => scaled(v, sizes) + "B/s", share: (v) => short(v * 100) + " %",
    celsius: (v) => short(v) + " °C", watts: (v) => short(v) + " W",
    "": (v) => (Math.abs(v) >= 10000 ? Math.round(v).toLocaleString("en") : v && Math.abs(v) < 1e-3 ? v.toExponential(2) : short(v)),
  };
  const nearest = (p, at) => {
    let low = 0, high = p.length - 1;
    if (p.every((v, i) => !i || v >= p[i - 1])) {
      while (high - low > 1) { const mid = (low + high) >> 1; if (p[mid] < at) low = mid; else high = mid; }
      return Math.abs(p[low] - at) <= Math.abs(p[high] - at) ? low : high;
    }
    return p.reduce((best, v, i) => (Math.abs(v - at) <= Math.abs(p[best] - at) ? i : best), 0);
  };
  for (const box of document.querySelectorAll(".box")) {
    const told = JSON.parse(box.querySelector("script").textContent);
    const lines = told.lines.filter((line) => line.p.length);
    const cross = box.querySelector(".cross"), said = box.querySelector(".said");
    let at = 500;
    const show = () => {
      if (!lines.length) return;
      const found = lines.map((line) => [line, nearest(line.p, at)]);
      const [first, i] = found.reduce((a, b) => (Math.abs(b[0].p[b[1]] - at) < Math.abs(a[0].p[a[1]] - at) ? b : a));
      const x = first.x[i], left = first.p[i] / 10;
      said.textContent = (told.across === "step" ? "step " + x.toLocaleString("en") : since(x)) +
        found.map(([line, k]) => (found.length > 1 ? "\n" + line.name + "  " : "   ") + words[told.unit](line.y[k])).join("");
      cross.style.left = left + "%";
      said.style.left = left < 50 ? `calc(${left}% + 8px)` : "auto";
      said.style.right = left < 50 ? "auto" : `calc(${100 - left}% + 8px)`;
      cross.hidden = said.hidden = false;
    };
    const hide = () => { cross.hidden = said.hidden = true; };
    box.addEventListener("pointermove", (event) => {
      const edges = box.getBoundingClientRect();
      at = (1000 * (event.clientX - edges.left)) / edges.width;
      show();
    });
    box.addEventListener("pointerleave", hide);
    box.addEventListener("focus", show);
    box.addEventListener("blur", hide);
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -10, ArrowRight: 10, Home: -1000, End: 1000 }[event.key];
      if (!by) return;
      at = Math.min(Math.max(at + by, 0), 1000);
      event.preventDefault();
      show();
    });
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    const value = (row, i) => {
      const cell = row.cells[i];
      return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v === "" ? -Infinity : Number(cell.dataset.v);
    };
    const sort = (i) => {
      const down = heads[i].getAttribute("aria-sort") === "descending" ? 1 : heads[i].classList.contains("n") || heads[i].ariaSort ? -1 : 1;
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[i].setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [value(row, i), row]);
      rows.sort(([a], [b]) => down * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a === b ? 0 : a - b));
      body.append(...rows.map(([, row]) => row));
    };
    heads.forEach((head, i) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(i));
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(i); });
    });
  }
  for (const input of document.querySelectorAll("input.filter")) {
    const rows = [...document.getElementById(input.dataset.for).tBodies[0].rows];
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const row of rows) row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
    });
  }
})();
