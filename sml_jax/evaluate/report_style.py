"""The looks and the few lines of script of report.html. Nothing is fetched from anywhere."""

CSS = """
:root{color-scheme:light dark;--ink:#1f2329;--soft:#5b636e;--paper:#fbfaf8;--panel:#fff;--grid:#d9dde3;
  --line:#e5e3de;--accent:#b34700;--mark:#ffe2b8;--teacher:#eef1f5;--student:#fff7ec;--edge:#f0dcc0;
  --good:#0b6b4c;--good-bg:#dcf3e8;--bad:#9c2f2f;--bad-bg:#fbe4e2;--warn:#7a5600;--warn-bg:#fff0c9;
  --quiet:#5b636e;--quiet-bg:#eceef1}
@media(prefers-color-scheme:dark){:root{--ink:#e4e6ea;--soft:#9da5b1;--paper:#15171b;--panel:#1c1f25;
  --grid:#343a44;--line:#2b3038;--accent:#ff9d5c;--mark:#5c4218;--teacher:#242932;--student:#26211a;
  --edge:#43382a;--good:#7fdcb4;--good-bg:#123a2c;--bad:#f3a5a0;--bad-bg:#46211f;--warn:#f2cf7e;--warn-bg:#40330f;
  --quiet:#a8b0bb;--quiet-bg:#2a2f37}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
  "Noto Sans","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1040px;margin:0 auto;padding:56px 24px 96px}
h1{font-size:30px;line-height:1.15;letter-spacing:-.02em;margin:0 0 6px;font-weight:680}
h2{font-size:21px;letter-spacing:-.01em;margin:56px 0 10px;font-weight:640}
h3{font-size:16px;margin:28px 0 8px;font-weight:620}
p{margin:0 0 14px}
.lede,.why,dl,ul.notes{max-width:74ch}
.sub,.why,figcaption,.meta{color:var(--soft)}
.why,figcaption{font-size:14.5px}
.lede{margin:26px 0 8px;padding:0;list-style:none;counter-reset:s}
.lede li{counter-increment:s;position:relative;padding-left:34px;margin:0 0 14px;font-size:17.5px;line-height:1.55}
.lede li:before{content:counter(s);position:absolute;left:0;top:2px;color:var(--accent);font-weight:680}
ul.notes{margin:18px 0 0;padding:14px 18px 4px 34px;border-left:3px solid var(--accent);background:var(--panel);
  font-size:15px;border-radius:0 8px 8px 0}
ul.notes li{margin-bottom:10px}
figure{margin:16px 0 0;padding:16px 14px 12px;background:var(--panel);border:1px solid var(--line);
  border-radius:12px}
figure svg{display:block;width:100%;height:auto}
figure svg text{font-family:inherit!important}
figcaption{margin:8px 6px 0}
.scroll{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px;text-align:right;vertical-align:middle;border-top:1px solid var(--line);white-space:nowrap}
thead th{border-top:0;color:var(--soft);font-weight:560;font-size:12.5px;vertical-align:bottom}
tbody tr.head th{text-align:left;padding:12px 12px 5px;font-size:13.5px;color:var(--ink);background:var(--paper)}
td.l,th.l{text-align:left}
td.w{white-space:normal;min-width:230px}
td small{color:var(--soft);font-size:12px;display:block;line-height:1.35}
tr.beside td{color:var(--soft)}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:8px}
.forest{width:190px;height:22px;display:block}
.chip{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;line-height:1.6;font-weight:560;
  white-space:nowrap;margin-right:6px}
.good{color:var(--good);background:var(--good-bg)}
.bad{color:var(--bad);background:var(--bad-bg)}
.warn{color:var(--warn);background:var(--warn-bg)}
.chip.quiet{color:var(--quiet);background:var(--quiet-bg)}
i.quiet{color:var(--soft)}
.filters{display:flex;flex-wrap:wrap;gap:8px 22px;margin:16px 0;font-size:14px}
.filters div{display:flex;flex-wrap:wrap;gap:6px;align-items:center}
.filters span{color:var(--soft);margin-right:2px}
button{font:inherit;font-size:13.5px;padding:3px 12px;border-radius:99px;border:1px solid var(--line);
  background:var(--panel);color:var(--ink);cursor:pointer}
button[aria-pressed=true]{background:var(--ink);color:var(--paper);border-color:var(--ink)}
button:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.card{background:var(--panel);border:1px solid var(--line);border-radius:12px;margin:0 0 8px}
.card>summary{cursor:pointer;padding:10px 16px;list-style:none;display:flex;gap:8px;align-items:baseline;
  font-size:14.5px}
.card>summary::-webkit-details-marker{display:none}
.card>summary b{font-weight:600}
.problem{color:var(--soft);overflow:hidden;text-overflow:ellipsis;white-space:nowrap;min-width:0}
.card[open]>summary{border-bottom:1px solid var(--line)}
.card[open] .problem{visibility:hidden}
.talk{padding:16px 18px 4px;max-width:780px}
.turn{margin:0 0 10px;max-width:92%}
.turn.student{margin-left:auto;display:flex;flex-flow:row-reverse wrap;align-items:center;gap:4px 10px}
.who{display:block;font-size:12px;color:var(--soft);margin:0 4px 2px}
.student .who{width:100%;text-align:right}
.turn:nth-child(n+3) .who{display:none}
.bubble{display:inline-block;padding:7px 14px;border-radius:4px 14px 14px 14px;white-space:pre-wrap;
  overflow-wrap:anywhere;background:var(--teacher);font-size:15.5px}
.student .bubble{background:var(--student);box-shadow:inset 0 0 0 1px var(--edge);border-radius:14px 4px 14px 14px}
.student .chip{margin:0 0 0 6px}
.nll{font-size:12px;color:var(--soft);margin-left:10px}
mark{background:var(--mark);color:inherit;border-radius:3px;padding:1px 0;box-decoration-break:clone;
  -webkit-box-decoration-break:clone}
.sp{font-size:11px;color:var(--soft);margin-left:4px;letter-spacing:.02em}
.meta{font-size:12.5px;margin:0;padding:8px 18px 12px;overflow-wrap:anywhere}
dt{font-weight:600;margin-top:14px}
dd{margin:2px 0 0;color:var(--soft)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12.5px;line-height:1.5;margin:0;padding:14px 18px}
.fold{margin:14px 0 0}
.fold>summary{cursor:pointer;font-weight:560;font-size:15px;padding:6px 0}
.fold>pre{background:var(--panel);border:1px solid var(--line);border-radius:12px}
.hidden{display:none}
@media(max-width:640px){main{padding:32px 16px 64px}
h1{font-size:27px}
.turn{max-width:96%}}
@media print{.filters{display:none}
body{background:#fff}}
"""

JS = """
const buttons=document.querySelectorAll(".filters button");
const wanted={arm:START,outcome:"",domain:""};
function show(){
  let n=0;
  for(const card of document.querySelectorAll(".card")){
    const on=Object.entries(wanted).every(([k,v])=>!v||card.dataset[k]===v);
    card.classList.toggle("hidden",!on);n+=on;
  }
  for(const b of buttons)b.setAttribute("aria-pressed",wanted[b.dataset.key]===b.dataset.value);
  document.getElementById("count").textContent=n+" shown";
}
for(const b of buttons)b.onclick=()=>{wanted[b.dataset.key]=b.dataset.value;show()};
show();
"""
