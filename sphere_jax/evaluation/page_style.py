"""The style sheet of `report.html`."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f5f7fa; --ink: #1b2330; --soft: #5b6675; --line: #dde2e9;
  --accent: #2563eb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --card: #1d2229; --ink: #e6e9ee; --soft: #9aa4b2; --line: #2f3742;
    --accent: #7aa7ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 10px; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 0 0 14px; }
p { max-width: 74ch; margin: 0 0 14px; }
header p { color: var(--soft); font-size: 17px; }
.headlines {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px;
  margin: 26px 0 20px;
}
.headlines div {
  display: flex; flex-direction: column; background: var(--card); border-radius: 12px;
  padding: 14px 18px 15px;
}
.headlines span { color: var(--soft); font-size: 13.5px; }
.headlines b {
  margin-top: auto; font-size: 26px; line-height: 1.35; font-weight: 650;
  font-variant-numeric: tabular-nums;
}
.headlines small { color: var(--soft); font-size: 13px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14.5px; margin-bottom: 8px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { border-top: 1px solid var(--line); margin-top: 30px; padding-top: 28px; }
figure { margin: 0 0 26px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 10px; max-width: 74ch; }
.wide { overflow-x: auto; margin: 0 0 20px; }
table { border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 13.5px; color: var(--soft); }
th, td {
  padding: 8px 26px 8px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere;
}
td:first-child { min-width: 150px; }
td.number { white-space: nowrap; }
pre {
  background: var(--card); border-radius: 10px; padding: 14px 18px; overflow-x: auto;
  margin: 0 0 16px; font: 13.5px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
code { font: inherit; }
@media print { nav { display: none; } section { break-inside: avoid; } }
"""
