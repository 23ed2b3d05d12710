// What the dashboard does beyond plain pages. Each chart is drawn from the table beside it, so both
// always say the same; text only ever goes in by textContent. Without this script all pages work.
(() => {
  "use strict";
  const THIN = "\u202f";
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const scaled = (value, unit) => {
    for (const [step, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= step) {
        const number = value / step;
        const digits = number < 10 && number % 1 ? (number * 10 % 1 ? 2 : 1) : number < 100 && number % 1 ? 1 : 0;
        const named = unit === "B" ? name : { G: "bn", T: "tn" }[name] || name;
        return number.toFixed(digits) + THIN + named + unit;
      }
    }
    return value.toFixed(0) + (unit ? THIN + unit : "");
  };

  const hatch = (u) => {
    const tile = document.createElement("canvas");
    const ratio = window.devicePixelRatio || 1;
    tile.width = tile.height = Math.round(6 * ratio);
    const context = tile.getContext("2d");
    context.strokeStyle = variable("--hatch");
    context.lineWidth = ratio;
    for (const shift of [-6, 0, 6]) {
      context.beginPath();
      context.moveTo((shift - 1) * ratio, 7 * ratio);
      context.lineTo((shift + 7) * ratio, -ratio);
      context.stroke();
    }
    return u.ctx.createPattern(tile, "repeat");
  };

  const readTable = (figure) => {
    const rows = [...figure.querySelectorAll("tbody tr[data-t]")];
    const columns = [rows.map((row) => Number(row.dataset.t))];
    for (const index of rows[0] ? [...rows[0].querySelectorAll("[data-v]")].keys() : []) {
      columns.push(rows.map((row) => Number(row.querySelectorAll("[data-v]")[index].dataset.v)));
    }
    return { columns, names: rows.map((row) => row.querySelector("th").textContent) };
  };

  const tip = (figure, names, format) => {
    let box = null;
    return {
      hooks: {
        init: (u) => {
          box = document.createElement("div");
          box.className = "tip";
          box.hidden = true;
          u.over.append(box);
        },
        setCursor: (u) => {
          const at = u.cursor.idx;
          box.hidden = at === null || at === undefined;
          if (box.hidden) return;
          const title = document.createElement("b");
          title.textContent = names[at];
          const lines = u.series.slice(1).map((series, index) => {
            const line = document.createElement("div");
            line.textContent = series.label + " " + format(u.data[index + 1][at]);
            return line;
          });
          box.replaceChildren(title, ...lines);
          const room = u.over.clientWidth - box.offsetWidth;
          box.style.left = Math.max(0, Math.min(room, u.cursor.left + 12)) + "px";
          box.style.top = "4px";
        },
      },
    };
  };

  const draw = (figure) => {
    const place = figure.querySelector(".plot");
    const { columns, names } = readTable(figure);
    if (columns.length < 2) return null;
    const kind = figure.dataset.chart;
    const unit = kind === "bytes" ? "B" : "";
    const format = (value) => scaled(value, unit);
    const bars = uPlot.paths.bars({ size: [0.62, 26], align: 0, radius: 0.15 });
    const kept = variable("--kept");
    const errors = kind === "errors";
    const series = errors
      ? [{ label: "errors", stroke: variable("--bad"), fill: variable("--bad"), paths: bars, points: { show: false } }]
      : [
          { label: "seen", stroke: variable("--dropped"), fill: hatch, width: 1, paths: bars, points: { show: false } },
          { label: "kept", stroke: kept, fill: kept, width: 1, paths: bars, points: { show: false } },
        ];
    const axis = { stroke: variable("--soft"), font: "12px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: variable("--line"), width: 1 };
    const hours = figure.dataset.step === "hour";
    const step = hours ? 3600 : 86400;
    place.replaceChildren();
    return new uPlot({
      width: Math.max(200, place.clientWidth),
      height: errors ? 120 : 230,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      legend: { show: false },
      padding: [10, 6, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { time: true, range: (u, low, high) => [low - step * 0.6, high + step * 0.6] },
        y: { range: (u, low, high) => [0, high > 0 ? high * 1.06 : 1] },
      },
      series: [{}, ...series],
      axes: [
        { ...axis, grid: { show: false }, size: 26, gap: 6, space: 64, values: (u, ticks) => ticks.map((tick) => {
          const date = new Date(tick * 1e3);
          const day = date.getUTCDate() + " " + date.toLocaleString("en", { month: "short", timeZone: "UTC" });
          return hours && date.getUTCHours() ? String(date.getUTCHours()).padStart(2, "0") + ":00" : day;
        }) },
        { ...axis, grid, size: 58, space: errors ? 30 : 44, values: (u, ticks) => ticks.map((tick) =>
          (errors && tick % 1 ? "" : format(tick))) },
      ],
      plugins: [tip(figure, names, format)],
    }, columns, place);
  };

  const charts = () => {
    const figures = [...document.querySelectorAll("figure[data-chart]")];
    if (!figures.length) return;
    if (typeof uPlot === "undefined") {
      for (const figure of figures) figure.classList.add("no-plot");
      return;
    }
    let drawn = [];
    const again = () => {
      for (const chart of drawn) if (chart) chart.destroy();
      drawn = figures.map(draw);
    };
    again();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    let width = document.documentElement.clientWidth;
    window.addEventListener("resize", () => {
      if (document.documentElement.clientWidth === width) return;
      width = document.documentElement.clientWidth;
      again();
    });
  };

  const effect = () => {
    const card = document.querySelector("[data-effect]");
    if (!card) return;
    const form = card.querySelector("[data-slider]");
    const slider = form.querySelector("input[type=range]");
    const field = form.querySelector("[name=target]");
    const targets = form.dataset.targets.split(",").map(Number);
    let asked = 0;
    let timer = 0;
    const show = (told) => {
      for (const place of document.querySelectorAll("[data-told]")) {
        if (place.dataset.told in told) place.textContent = told[place.dataset.told];
      }
    };
    const ask = async () => {
      const mine = ++asked;
      const percent = field.value.replace(",", ".").trim();
      if (!(Number(percent) > 0 && Number(percent) <= 100)) return;
      document.querySelector("[data-target]").value = percent;
      slider.setAttribute("aria-valuetext", percent + " percent");
      card.setAttribute("aria-busy", "true");
      try {
        for (let turn = 0; turn < 30 && mine === asked; turn += 1) {
          const url = card.dataset.effect + "&target=" + encodeURIComponent(percent);
          const answer = await fetch(url, { headers: { Accept: "application/json" } });
          if (!answer.ok) break;
          if (answer.status === 200) {
            const told = await answer.json();
            if (mine === asked) show(told);
            break;
          }
        }
      } finally {
        if (mine === asked) card.removeAttribute("aria-busy");
      }
    };
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(ask, 120);
    };
    slider.disabled = false;
    slider.setAttribute("aria-valuetext", field.value + " percent");
    slider.addEventListener("input", () => {
      field.value = String(Number((100 * targets[Number(slider.value)]).toPrecision(4)));
      soon();
    });
    field.addEventListener("input", () => {
      const wanted = Number(field.value.replace(",", ".")) / 100;
      const nearest = targets.map((target) => Math.abs(target - wanted));
      slider.value = String(nearest.indexOf(Math.min(...nearest)));
      soon();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask();
    });
    if (card.querySelector("[data-told=kept]").textContent === "…") ask();
  };

  const copies = () => {
    for (const button of document.querySelectorAll("[data-copy]")) {
      if (!navigator.clipboard) return;
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
      });
    }
  };

  const keys = () => {
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, select, textarea");
      const search = document.querySelector("[data-search]");
      if (event.key === "/" && search && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    });
  };

  // On a phone the tabs scroll: the present one should be in sight.
  const tabs = document.querySelector(".tabs");
  const here = tabs && tabs.querySelector("[aria-current]");
  if (here) tabs.scrollLeft = here.offsetLeft - (tabs.clientWidth - here.offsetWidth) / 2;

  charts();
  effect();
  copies();
  keys();
})();
