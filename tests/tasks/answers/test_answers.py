r"""The answer checker, on pairs whose verdict is known by hand. The first aim: nothing wrong passes for right."""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import threading
import time

import pytest

from sml_jax.tasks import answers
from sml_jax.tasks.answers import Checked, check, extract, gold_problem, is_number, symbolic
from sml_jax.tasks.answers.formula_equal import numerically
from sml_jax.tasks.answers.formula_reader import read

DATA = pathlib.Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the data folder ../shared/data is not here")
needs_math_verify = pytest.mark.skipif(not symbolic.available(), reason="Math-Verify is not installed")

# Right or wrong by exact arithmetic and by form alone; (gold, answer, verdict).
EXACT = {
    "numbers": [
        ("5", "5", "equal"), ("5", "05", "equal"), ("5", "5.0", "equal"), ("5", "5.", "equal"), ("5", "+5", "equal"),
        ("5", "$5$", "equal"), ("5", "\\$5", "equal"), ("5", "\\(5\\)", "equal"), ("5", "\\boxed{5}", "equal"),
        ("5", "(5)", "equal"), ("5", "{5}", "equal"), ("5", "\\frac{10}{2}", "equal"), ("5", "10/2", "equal"),
        ("5", "-(-5)", "equal"), ("5", "|-5|", "equal"), ("5", "\\lfloor 5.5 \\rfloor", "equal"), ("0", "-0", "equal"),
        ("5", "--5", "unparsable"), ("5", "-5", "differs"), ("5", ".5", "differs"), ("5", "5.0001", "differs"),
        ("5", "50", "differs"), ("5", "5" + "0" * 100, "differs"), ("5", "five", "differs"), ("5", "", "no_answer"),
        ("5", " $ $ ", "no_answer"), ("5", "5..6", "unparsable"), ("5", "5...", "unparsable"),
        ("5", "4.999999", "differs"),
        ("1/3", "0.333", "differs"), ("1/3", "0.33333333333333333333", "differs"), ("0.5", "\\frac12", "equal"),
        ("-\\frac{1}{2}", "\\frac{-1}{2}", "equal"), ("-\\frac{1}{2}", "\\frac{1}{-2}", "equal"),
        ("\\frac{1}{2}", "2^{-1}", "equal"), ("\\frac{1}{23}", "\\frac123", "unparsable"), ("1/2", "2/1", "differs"),
        ("2516_8", "2516_{8}", "equal"), ("2516_8", "2516_7", "unparsable"), ("2516_8", "2516", "unparsable"),
        ("5", "\\boxed{" * 30 + "5" + "}" * 30, "equal"), ("5", "\\boxed{" * 300 + "5" + "}" * 300, "unparsable"),
    ],
    "thousands": [
        ("1080", "1,080", "equal"), ("1080", "1{,}080", "equal"), ("1080", "1\\,080", "equal"),
        ("1080", "1,\\!080", "equal"),
        ("1,080", "1080.00", "equal"), ("1080", "1 080", "unparsable"), ("1080", "1,08", "differs"),
        ("1080", "1,80", "differs"),
        ("1080", "1, 080", "differs"), ("56", "5 6", "unparsable"), ("56", "5\\,6", "unparsable"),
        ("56", "5\\!6", "unparsable"),
        ("1234567", "1,234,567", "equal"), ("1234567", "1,234567", "differs"), ("\\{1,234\\}", "1234", "differs"),
        ("1080", "(1,080)", "differs"), ("100, 200", "100,200", "equal"), ("100200", "100, 200", "differs"),
    ],
    "percent, money, units": [
        ("60", "60%", "equal"), ("60", "60\\%", "equal"), ("60%", "60", "equal"),
        ("60\\%", "60 \\text{ percent}", "equal"),
        ("0.6", "60%", "differs"), ("60%", "0.6", "differs"), ("5", "5%6", "unparsable"), ("5", "5% 6", "unparsable"),
        ("5", "5 % or 6", "differs"), ("5", "5 \\text{ cm}", "equal"), ("5\\text{ m}", "5", "equal"),
        ("5\\text{ m}", "5 \\text{ cm}", "differs"), ("5\\text{ m}", "5 \\text{ meters}", "equal"),
        ("5", "5cm", "equal"),
        ("5\\text{ cm}", "5 \\text{ cm}^2", "differs"), ("1620 \\mathrm{~mm}^{2}", "1620", "equal"),
        ("1620 \\mathrm{~mm}^{2}", "1620\\text{ mm}^2", "equal"), ("5", "5 \\text{ apples}", "equal"),
        ("5", "5 \\text{ thousand}", "unparsable"), ("5", "5 \\text{ thousands}", "unparsable"),
        ("5", "5 \\text{ dozens}", "unparsable"), ("5", "5 \\text{ minus } 1", "unparsable"),
        ("5", "5 \\text{ less}", "unparsable"),
        ("5", "5 \\text{ squared}", "unparsable"), ("5", "5 \\text{ is wrong}", "unparsable"),
        ("5\\text{ apples}", "5\\text{ pears}", "differs"), ("5", "5 \\text{ m/s}", "equal"),
        ("5\\text{ m/s}", "5 \\text{ m}", "differs"),
        ("12^\\circ", "12", "equal"), ("12", "12^{\\circ}", "equal"), ("12^\\circ", "12 \\text{ degrees}", "equal"),
        ("12^\\circ", "12\u00b0", "equal"), ("12^\\circ", "13^\\circ", "differs"),
        ("\\frac{1170^{\\circ}}{19}", "1170/19", "equal"),
        ("25^{\\circ} \\mathrm{C}", "25", "equal"), ("25^{\\circ} \\mathrm{C}", "25^{\\circ} \\mathrm{F}", "differs"),
        ("$14.50", "14.5", "equal"), ("$14.50", "\\$14.50", "equal"),
        ("12^\\circ", "12\\degree", "equal"), ("5", "5 \\text{ distinct positive integers}", "equal"),
        ("5", "5 \\text{ positive}", "unparsable"), ("5", "5 \\text{ positive or negative integers}", "unparsable"),
        ("5", "5 \\text{ total dozens}", "unparsable"), ("5\\text{ cm}^2", "5\\text{ square centimeters}", "equal"),
        ("5\\text{ cm}^2", "5\\text{ square meters}", "differs"), ("5", "5 \\text{ square units}", "equal"),
        ("5\\text{ cm}^2", "5\\text{ cubic centimeters}", "differs"), ("5", "5 \\text{ square}", "unparsable"),
    ],
    "lists and hedges": [
        ("5", "5 or 6", "differs"), ("5", "5, 6", "differs"), ("5", "5;6", "differs"),
        ("5", "5 \\text{ or } 6", "differs"),
        ("5", "either 5 or 6", "unparsable"), ("5", "not 5", "unparsable"), ("5", "\\neg 5", "unparsable"),
        ("5", "5 \\pm 1", "differs"), ("5", "5 \\pm 0", "differs"), ("5", "\\pm 5", "differs"),
        ("5", "5, 5", "differs"),
        ("5", "5,", "unparsable"), ("5", "5,0", "differs"), ("5", "5 and not 6", "unparsable"),
        ("5", "5 \\lor 6", "unparsable"),
        ("5", "\\boxed{5}\\boxed{6}", "unparsable"), ("6", "5\\boxed{6}", "unparsable"),
        ("5", "5 (or 6)", "unparsable"),
        ("5", "5 \\mid 6", "unparsable"), ("5", "x \\mid x=5", "unparsable"), ("5", "5 \\approx 6", "unparsable"),
        ("5", "\\{x \\mid x = 5 \\text{ or } 6\\}", "unparsable"), ("5", "5 \\cup 6", "differs"),
        ("5", "5?", "unparsable"),
        ("1,2", "2,1", "equal"), ("1,2", "1 and 2", "equal"), ("1, 2, 3", "1, 2, and 3", "equal"),
        ("1,2", "1", "differs"),
        ("1,2", "1,2,2", "differs"), ("1,2", "1,2,3", "differs"), ("1,2", "1,3", "differs"), ("1,1", "1,2", "differs"),
        ("\\pm\\frac{9}{4}", "\\frac94, -\\frac94", "equal"), ("\\pm\\frac{9}{4}", "\\frac94", "differs"),
        ("\\pm 2", "-2, 2", "equal"), ("1 \\pm 2", "3, -1", "equal"), ("1 \\pm 2", "1 \\mp 2", "equal"),
        ("\\boxed{2, 3, 7}", "7, 2, 3", "equal"), ("2,3,7", "2,3,8", "differs"),
    ],
    "pairs, sets, intervals": [
        ("(1,2)", "(1, 2)", "equal"), ("(1,2)", "\\left(1,2\\right)", "equal"), ("(1,2)", "(2,1)", "differs"),
        ("(1,2)", "\\{1,2\\}", "differs"), ("(1,2)", "1,2", "equal"), ("(1,2)", "2,1", "differs"),
        ("(1,2)", "[1,2]", "differs"),
        ("(\\frac12, 1)", "(0.5, 1)", "equal"), ("(1,2,3)", "(1,2)", "differs"), ("(1,2)", "(1,2,3)", "differs"),
        ("\\{1,2\\}", "\\{2,1\\}", "equal"), ("\\{1,2\\}", "2,1", "equal"), ("\\{1,2\\}", "(1,2)", "differs"),
        ("\\{1,2\\}", "\\{1,2,3\\}", "differs"), ("5", "\\{5\\}", "differs"), ("\\{5\\}", "5", "differs"),
        ("\\emptyset", "\\{\\}", "equal"), ("\\emptyset", "0", "differs"), ("0", "\\varnothing", "differs"),
        ("5", "[4,6]", "differs"), ("5", "[5,5]", "differs"), ("5", "[5]", "differs"), ("5", "(5]", "unparsable"),
        ("[0,1]", "0\\le x\\le 1", "equal"), ("[0,1]", "0<x\\le 1", "differs"), ("[0,1]", "1\\ge x\\ge 0", "equal"),
        ("0 \\leq r \\leq \\frac{1}{2}", "[0, 0.5]", "equal"),
        ("0 \\leq r \\leq \\frac{1}{2}", "0 \\leq x \\leq \\frac{1}{2}", "differs"),
        ("[0,1)", "x\\in[0,1)", "equal"), ("[0,1)", "[0,1]", "differs"), ("(0,1)", "0<x<1", "differs"),
        ("(0,1]", "0<x\\le1", "equal"),
        ("x<1", "1>x", "equal"), ("x<1", "x>1", "differs"), ("x<1", "x\\le 1", "differs"), ("x<1", "y<1", "differs"),
        ("x<1", "(-\\infty,1)", "equal"), ("x<1", "(-\\infty,1]", "differs"), ("x \\ge 2", "[2, \\infty)", "equal"),
        ("(-\\infty,1)\\cup(3,\\infty)", "(3,\\infty)\\cup(-\\infty,1)", "equal"),
        ("(-\\infty,1)\\cup(3,\\infty)", "x<1 \\text{ or } x>3", "equal"),
        ("(-\\infty,1)\\cup(3,\\infty)", "(-\\infty,1)", "differs"),
        ("(-\\infty,1)\\cup(3,\\infty)", "(-\\infty,1)\\cup[3,\\infty)", "differs"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", "equal"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}", "differs"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)", "differs"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}", "differs"),
        ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "-2", "unparsable"),
        ("0<x<1", "(0,1)", "equal"), ("0<x<1", "x\\in(0,1)", "equal"), ("0<x<1", "y\\in(0,1)", "differs"),
        ("0<x<1", "x\\in(0,1]", "differs"), ("x \\ge 2", "x >= 2", "equal"), ("x \\ge 2", "x <= 2", "differs"),
        ("(1,2)", "(x,y)=(1,2)", "equal"), ("(1,2)", "(y,x)=(1,2)", "differs"), ("(1,2)", "(x,y)=(2,1)", "differs"),
        ("(1,2)", "(x,y,z)=(1,2)", "differs"), ("(1,2)", "(x,x)=(1,2)", "differs"), ("(x,y)=(1,2)", "(1,2)", "equal"),
        ("(x,y)=(1,2)", "(y,x)=(1,2)", "differs"), ("(1,2),(2,1)", "(x,y)=(2,1),(1,2)", "equal"),
        ("(1,2),(2,1)", "(x,y)=(2,1),(x,y)=(1,2)", "equal"), ("(1,2),(2,1)", "(x,y)=(2,1)", "differs"),
    ],
    "equations": [
        ("5", "x=5", "equal"), ("x=5", "5", "equal"), ("x=5", "x=5", "equal"), ("x=5", "5=x", "equal"),
        ("x=5", "y=5", "differs"),
        ("5", "x=2+3=5", "equal"), ("5", "x=5=6", "differs"), ("5", "x=6=5", "differs"), ("5", "5=6", "differs"),
        ("5", "2+3=5", "equal"), ("5", "x\\ne5", "differs"), ("5", "5\\ne 6", "differs"), ("5", "x>5", "differs"),
        ("5", "x\\ge5", "differs"), ("5", "x", "differs"), ("f(x)=5", "5", "equal"),
        ("x=1,2", "x=1 \\text{ or } x=2", "equal"),
        ("x=1 \\text{ or } x=2", "1, 2", "equal"), ("x=1 \\text{ or } x=2", "y=1 \\text{ or } y=2", "differs"),
        ("x=1,y=2", "y=2, x=1", "equal"), ("x=1,y=2", "x=2,y=1", "differs"), ("x=1,y=2", "1,2", "differs"),
        ("3x-y+13=0", "3x+4y+14=0", "differs"), ("3x-y+13=0", "0", "differs"), ("y=2x", "2x=y", "equal"),
        ("y=2x", "2x", "equal"),
        ("5", "|S|=5", "equal"), ("5", "AB=5", "equal"), ("5", "a+b=5", "equal"), ("5", "f(3)=5", "equal"),
        ("5", "f(5)=6", "differs"), ("5", "2x=5", "differs"), ("5", "x^2=5", "differs"), ("5", "|x-1|=5", "differs"),
        ("5", "a+b=5=6", "differs"), ("ab=5", "5", "differs"), ("a", "bc=a", "differs"),
    ],
    "closed forms": [
        ("1024", "2^{10}", "equal"), ("1024", "2^10", "equal"), ("1024", "2**10", "unparsable"),
        ("1024", "2^{1}0", "unparsable"),
        ("120", "\\frac{10!}{3!7!}", "equal"), ("36", "3!6", "unparsable"),
        ("120", "5!", "equal"), ("5", "5!", "differs"), ("15", "5!!", "unparsable"), ("25", "5^2", "equal"),
        ("25", "5\u00b2", "unparsable"),
        ("\\binom{10}{3}", "120", "equal"), ("\\binom{10}{3}", "\\frac{10}{3}", "differs"), ("6", "2\\times3", "equal"),
        ("6", "2 \\cdot 3", "equal"), ("6", "2(3)", "equal"), ("5", "5 \\times", "unparsable"),
        ("5", "5^", "unparsable"),
        ("480000000", "4.8 \\times 10^{8}", "equal"), ("4.8 \\times 10^{8}", "4.8e8", "equal"),
        ("4.8 \\times 10^{8}", "4.8", "differs"),
        ("2", "\\sqrt{4}", "equal"), ("2", "\\sqrt[3]{8}", "equal"), ("-2", "\\sqrt[3]{-8}", "equal"),
        ("4", "\\sqrt{16}", "equal"),
        ("7\\frac13", "22/3", "equal"), ("7 \\frac{1}{3}", "7 1/3", "equal"), ("7\\frac13", "7/3", "differs"),
        ("\\frac{7}{3}", "7\\frac{1}{3}", "differs"), ("71/3", "7 1/3", "differs"),
        ("\\frac{1}{6}", "\\frac12\\frac13", "unparsable"),
        ("2^{1100}", "4^{550}", "equal"), ("2^{1100}", "4^{551}", "differs"),
        ("2^{2013}-6036", "2^{2013}-6037", "differs"),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}", "differs"), ("7^{7} \\cdot 11^{7}", "77^7", "equal"),
        ("\\frac{1}{2}\\left(16^{3}-14^{3}\\right)", "676", "equal"), ("5", "0/0", "unparsable"),
        ("5", "5+0/0", "unparsable"),
        ("1", "0^0", "unparsable"), ("1", "0/0", "unparsable"), ("5", "1/0", "unparsable"),
        ("\\infty", "\\infty", "equal"),
        ("\\infty", "+\\infty", "equal"), ("\\infty", "-\\infty", "differs"), ("5", "\\infty", "differs"),
        ("n+1", "1+n", "equal"), ("ab", "ba", "equal"), ("2\\sqrt{3}", "\\sqrt{3} \\cdot 2", "equal"),
        ("2\\sqrt{3}", "2 sqrt(3)", "equal"),
        ("n+1", "m+1", "differs"), ("n", "N", "differs"), ("a_1", "a_2", "differs"), ("a_1", "a_{1}", "equal"),
        ("5", "5x/x", "differs"),
    ],
    "words": [
        ("\\text{Yes}", "Yes", "equal"), ("\\text{Yes}", "yes.", "equal"), ("\\text{Yes}", "\\textbf{Yes}", "equal"),
        ("\\text{Yes}", "No", "differs"), ("\\text{Yes}", "Yes or No", "differs"),
        ("\\text{Yes}", "not Yes", "differs"),
        ("\\text{Yes}", "Y", "differs"), ("No solution", "no solution.", "equal"), ("no solution", "0", "differs"),
        ("no solution", "\\emptyset", "differs"), ("0", "no solution", "differs"), ("5", "undefined", "differs"),
        ("5", "all real numbers", "differs"), ("\\mathbb{Z}", "\\mathbb{Z}", "equal"),
        ("\\mathbb{Z}", "\\mathbb{R}", "unparsable"),
        ("x", "\\text{x}", "equal"), ("\\text{(B)}", "(B)", "equal"), ("B", "C", "differs"),
        ("\\text{(B)}", "B", "equal"),
    ],
    "hidden and hostile": [
        ("5", "5\u200b", "unparsable"), ("5", "\u200b5", "unparsable"), ("5", "5\u202e6", "unparsable"),
        ("5", "\u0665", "unparsable"),
        ("5", "\uff15", "unparsable"), ("5", "\u2464", "unparsable"), ("5", "5\x00", "unparsable"),
        ("5", "\\phantom{6}5", "unparsable"),
        ("5", "\\color{red}5", "unparsable"), ("5", "\\textcolor{white}{6}5", "unparsable"),
        ("5", "5\\hspace{1cm}6", "unparsable"),
        ("5", "5 \\cancel{6}", "unparsable"), ("5", "\\cancel{5}", "unparsable"), ("5", "\\overline{5}", "unparsable"),
        ("5", "5_2", "unparsable"),
        ("5", "5'", "unparsable"), ("5", "5\\%6", "unparsable"), ("5", "5 % 6 is also fine", "unparsable"),
        ("5", "5 // 1", "unparsable"),
        ("5", "5 # 6", "unparsable"), ("5", "__import__('os')", "unparsable"), ("5", "5 & 6", "unparsable"),
        ("5", "5\\\\6", "unparsable"),
        ("5", "\\sum_{k=1}^{5} 1", "unparsable"), ("5", "\\int_0^5 dx", "unparsable"),
        ("5", "\\gcd(5,10)", "unparsable"),
        ("5", "12 \\bmod 7", "unparsable"), ("5", "1+1+\\ldots+1", "unparsable"), ("5", "\\max(5,4)", "unparsable"),
        ("5", "\\lim_{n\\to\\infty}5", "unparsable"), ("5", "f(5)", "unparsable"), ("5", "5 \\equiv 5", "unparsable"),
        ("5", "(" * 2000 + "5" + ")" * 2000, "unparsable"), ("5", "{" * 39 + "5" + "}" * 39, "equal"),
        ("5", "1" * 1_000_000, "unparsable"),
        ("5", "\\left(5\\right.", "unparsable"), ("5", "\\boxed{5", "unparsable"), ("5", "\\frac{5}", "unparsable"),
        ("5", "\\sqrt", "unparsable"),
        ("\\frac{5055}{2^{15}", "\\frac{5055}{2^{15}", "unparsable"), ("", "", "no_answer"), ("", "5", "unparsable"),
    ],
}  # fmt: skip

# These need numbers that are no fractions, or letters; (gold, answer, verdict).
SYMBOLIC = [
    ("\\sqrt{12}", "2\\sqrt{3}", "equal"), ("\\sqrt{12}", "2\\sqrt{2}", "differs"),
    ("2\\sqrt{3}", "3.4641016", "differs"),
    ("2\\sqrt{3}", "2\\sqrt{3}+10^{-30}", "unparsable"), ("2\\sqrt{3}", "2\\sqrt{3}+10^{-9}", "differs"),
    ("\\frac{1+\\sqrt5}{2}", "\\frac{2}{\\sqrt5-1}", "equal"),
    ("\\frac{1+\\sqrt5}{2}", "\\frac{1-\\sqrt5}{2}", "differs"),
    ("10\\sqrt3-15", "5(2\\sqrt3-3)", "equal"), ("17+\\frac{15}{2}\\sqrt3", "17+\\frac{15\\sqrt3}{2}", "equal"),
    ("8 \\sqrt{2022}", "\\sqrt{129408}", "equal"), ("\\sqrt{2}+1", "\\sqrt{2+1}", "differs"),
    ("\\sqrt[3]{2}", "\\sqrt{2}", "differs"),
    ("\\sqrt[6]{4}", "\\sqrt[3]{2}", "equal"), ("2\\sqrt[4]{6}", "\\sqrt[4]{96}", "equal"),
    ("3\\sqrt{66}/7", "\\frac{3\\sqrt{66}}{7}", "equal"),
    ("1-\\frac{1}{e}", "1+\\frac{1}{e}", "differs"), ("1-\\frac1e", "\\frac{e-1}{e}", "equal"),
    ("1-1/e", "1+1/e", "differs"),
    ("\\pi", "3.14159", "differs"), ("\\pi", "22/7", "differs"), ("\\frac{3\\pi}{4}", "0.75\\pi", "equal"),
    ("\\frac{\\pi+8}{16}", "\\frac12+\\frac{\\pi}{16}", "equal"),
    ("2-\\frac{6}{\\pi}", "\\frac{2\\pi-6}{\\pi}", "equal"), ("\\pi r", "\\pi", "differs"),
    ("\\pi",
    "3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679821480865",
     "differs"), ("60^\\circ", "\\frac{\\pi}{3}", "differs"), ("\\pm\\sqrt3", "-\\sqrt3, \\sqrt3", "equal"),
     ("\\pm\\sqrt3", "\\sqrt3", "differs"),
    ("\\ln 4", "2\\ln 2", "equal"), ("\\ln 4", "\\log 4", "differs"),
    ("\\log_{2008} 2009", "\\frac{\\ln 2009}{\\ln 2008}", "equal"),
    ("\\frac{n(n+1)}{2}", "\\frac{n^2+n}{2}", "equal"), ("\\frac{n(n+1)}{2}", "\\frac{n(n-1)}{2}", "differs"),
    ("n+1", "n-1", "differs"),
    ("2^{n+1}-2", "2(2^n-1)", "equal"), ("2^{n+1}-2", "2^{n}-2", "differs"),
    ("\\binom{n}{2}", "\\frac{n(n-1)}{2}", "equal"),
    ("\\binom{n}{k}", "\\binom{n}{n-k}", "equal"), ("\\binom{n}{k}", "\\frac{n}{k}", "differs"),
    ("|x|", "x", "differs"),
    ("\\sqrt{x^2}", "x", "differs"), ("\\sqrt{x^2}", "|x|", "equal"), ("\\frac{1}{1-x}", "-\\frac{1}{x-1}", "equal"),
    ("y=2x+1", "y-2x=1", "equal"), ("y=2x+1", "y=2x-1", "differs"), ("x<y+1", "x-y<1", "equal"),
    ("x<y+1", "x-y>1", "differs"),
    ("(1,\\sqrt{12})", "(1,2\\sqrt{3})", "equal"), ("(1,\\sqrt{12})", "(2\\sqrt{3},1)", "differs"),
    ("2\\sqrt3", "(2,\\sqrt3)", "differs"),
    ("[0,\\frac{1}{\\sqrt{2}}]", "[0,\\frac{\\sqrt{2}}{2}]", "equal"),
    ("[0,\\frac{1}{\\sqrt{2}}]", "[0,\\frac{\\sqrt{2}}{2})", "differs"),
    ("\\{1,\\sqrt{8}\\}", "\\{2\\sqrt{2},1\\}", "equal"), ("\\{1,\\sqrt{8}\\}", "\\{2\\sqrt{2},2\\}", "differs"),
    ("\\begin{pmatrix}1&\\sqrt8\\end{pmatrix}", "\\begin{pmatrix}1&2\\sqrt{2}\\end{pmatrix}", "equal"),
    ("2\\sqrt3", "2\\sqrt3\\text{ cm}", "equal"),
    ("2+3i", "2-3i", "differs"), ("5", "9^{9^{9^{9}}}", "unparsable"),
    ("9^{9^{9^{9}}}", "9^{9^{9^{9}}}+1", "unparsable"),
    ("1", "1+\\frac{1}{2014!^{2014}}", "unparsable"), ("\\frac{1}{2014!^{2014}}", "\\frac{1}{2015!^{2014}}", "differs"),
    ("0", "\\sqrt2\\sqrt3-\\sqrt6", "unparsable"), ("262537412640768744", "e^{\\pi\\sqrt{163}}", "differs"),
    ("n", "n+0.000001", "differs"),
    ("1", "\\tanh(1000)", "unparsable"), ("2", "1+\\cos(10^{-45})", "unparsable"), ("1", "e^{10^{-90}}", "unparsable"),
    ("\\sqrt{10^{300}+1}", "\\sqrt{10^{300}+2}", "differs"), ("2^{1000}\\sqrt2", "(2^{1000}+1)\\sqrt2", "differs"),
    ("\\sin^2 x", "\\sin x^2", "differs"), ("\\cosh(1000)", "\\sinh(1000)", "unparsable"),
    ("5", "5\\sin^2 x + 5\\cos^2 x", "differs"),
    ("x^n", "x^{n+2}", "differs"), ("(-1)^n", "(-1)^{n+2}", "equal"), ("(-1)^n", "(-1)^{n+1}", "differs"),
    ("\\lfloor n/2 \\rfloor", "n/2", "differs"),
    ("\\sqrt{1/n}", "1/\\sqrt{n}", "equal"), ("\\sqrt{1/n}", "\\sqrt{n}", "differs"),
    ("2\\lceil n/2\\rceil", "2\\lfloor (n+1)/2\\rfloor", "equal"),
    ("2\\lceil n/2\\rceil", "2\\lfloor n/2\\rfloor", "differs"),
    ("\\lfloor x\\rfloor", "x", "differs"), ("x", "\\lceil x\\rceil", "differs"),
    ("n", "\\lfloor n\\rfloor", "differs"),
    ("\\lfloor x\\rfloor", "\\lceil x\\rceil", "differs"), ("\\lfloor n/2\\rfloor", "\\frac{2n-1+(-1)^n}{4}", "equal"),
    ("\\lfloor x\\rfloor+1", "\\lfloor x+1\\rfloor", "equal"),
    ("\\lfloor n\\pi\\rfloor", "\\lceil n\\pi\\rceil-1", "equal"),
    ("(a-b)^2", "a^2+b^2-2ab", "equal"), ("(a-b)^2", "a^2+b^2-2", "differs"),
]  # fmt: skip

# (gold, turn, verdict).
RESPONSES = [
    ("5", "So \\boxed{5}.", "equal"), ("5", "**\\boxed{5}**", "equal"),
    ("5", "\\boxed{5}, and again \\boxed{5.0}", "equal"),
    ("5", "\\boxed{\\boxed{5}}", "equal"), ("5", "\\boxed{}", "no_answer"),
    ("5", "I put it in \\boxed{}: \\boxed{5}", "equal"),
    ("5", "\\boxed{5} or \\boxed{6}", "no_answer"), ("5", "\\boxed{6} or \\boxed{5}", "no_answer"),
    ("5", "\\boxed{5}\\boxed{6}", "no_answer"),
    ("5", "\\boxed{5 \\text{ or } 6}", "differs"), ("5", "\\boxed{5, 6}", "differs"),
    ("5", "\\boxed{[4,6]}", "differs"),
    ("5", "\\boxed{5 \\boxed{6}}", "unparsable"), ("6", "\\boxed{5 \\boxed{6}}", "unparsable"),
    ("5", "it is \\boxed{5} or 6", "no_answer"),
    ("5", "\\boxed{x \\mid x=5 or 6}", "unparsable"), ("5", "\\boxed{5}? Or is it 6?", "no_answer"),
    ("5", "\\boxed{5", "no_answer"),
    ("5", "\\boxed{5}, so \\boxed{6", "no_answer"), ("5", "not \\boxed{5}", "no_answer"),
    ("5", "It is not \\boxed{5}.", "no_answer"),
    ("5", "It is not equal to $\\boxed{5}$.", "no_answer"), ("5", "It cannot be \\boxed{5}", "no_answer"),
    ("5", "\\boxed{5} is wrong.", "no_answer"),
    ("5", "\\boxed{5} is not the answer", "no_answer"), ("5", "It does not depend on n, so it is \\boxed{5}.", "equal"),
    ("5", 'You said "the answer is \\boxed{5}".', "no_answer"), ("5", "> \\boxed{5}\nI do not know.", "no_answer"),
    ("5", 'The answer is "\\boxed{5}".', "equal"), ("5", "> is it \\boxed{6}?\nNo, \\boxed{5}", "equal"),
    ("5", "<think>\\boxed{5}</think>", "no_answer"), ("5", "<think>\\boxed{5}", "no_answer"),
    ("5", "<think>\\boxed{6}</think>\\boxed{5}", "equal"),
    ("5", "\\boxed{6}</think>\\boxed{5}", "equal"), ("5", "\\boxed{5}<think>\\boxed{6}</think>", "equal"),
    ("5", "\\boxed{5}<think>or \\boxed{6}", "no_answer"), ("5", "<think>a<think>b</think>\\boxed{5}", "no_answer"),
    ("5", "<THINK>6</THINK> #### 5", "equal"), ("2,3", "\\boxed{2} and \\boxed{3}", "equal"),
    ("2,3", "\\boxed{2}, \\boxed{3}, \\boxed{4}", "differs"),
    ("\\pm 2", "\\boxed{2} and \\boxed{-2}", "equal"), ("(2,3)", "\\boxed{2} and \\boxed{3}", "no_answer"),
    ("5", "\\boxed{\\$5}", "equal"),
    ("5", "\\boxed{6} #### 5", "differs"), ("5", "#### 5", "equal"), ("5", "#### 5 or 6", "no_answer"),
    ("5", "#### 6\n#### 5", "equal"),
    ("5", "#### 5\nThe answer is 6.", "equal"), ("5", "####", "no_answer"), ("72", "#### 48+24", "no_answer"),
    ("5", "answer: 5", "equal"),
    ("5", "Answer: **5**", "equal"), ("5", "The answer is 5.", "equal"), ("5", "The answer is not 5.", "no_answer"),
    ("5", "The answer is not 5, it is 6.", "no_answer"), ("6", "The answer is not 5, it is 6.", "no_answer"),
    ("5", "The answer isn't 5", "no_answer"),
    ("5", "The answer is either 5 or 6", "no_answer"), ("5", "The answer is 4 and 5.", "no_answer"),
    ("5", "The answer is \u00b15.", "no_answer"),
    ("5", "The answer is $\\pm 5$.", "differs"), ("5", "The answer is 5\u00b2.", "no_answer"),
    ("5", "The answer is 5\u00bd.", "no_answer"),
    ("25", "The answer is $5^2$.", "equal"), ("0.75", "The answer is $\\frac{3}{4}$.", "equal"),
    ("5", "The answer is at least 5", "no_answer"),
    ("5", "The answer is more than 5", "no_answer"), ("5", "The answer is >5", "no_answer"),
    ("5", "The answer is 5 thousand", "no_answer"),
    ("-5", "The answer is - 5", "equal"), ("5", "The answer is - 5", "differs"),
    ("5", "The answer is:\n- 5 pens", "equal"), ("5", "The answer is", "no_answer"),
    ("5", "The answer is 48/2=24. The answer is 5", "equal"), ("12", "The answer is 3 * 4 = 12.", "equal"),
    ("2\\pi", "The answer is $2\\pi$.", "equal"),
    ("2\\pi", "2\\pi", "no_answer"), ("\\text{Yes}", "The answer is **Yes**.", "equal"),
    ("\\text{Yes}", "The answer is not Yes", "no_answer"),
    ("\\text{Yes}", "The answer is No", "differs"), ("n+1", "answer: $1+n$", "equal"), ("540", "A: 540", "equal"),
    ("5", "A: $5.00", "equal"),
    ("1080", "A: $1,080", "equal"), ("60", "it is 60%", "equal"), ("0.6", "it is 60%", "differs"),
    ("12", "12 apples in 2 baskets", "differs"),
    ("2", "12 apples in 2 baskets", "equal"), ("5", "", "no_answer"), ("5", "no idea", "no_answer"),
    ("5", "A: 5 or 6", "no_answer"), ("6", "It is 5 or 6.", "no_answer"),
    ("5", "It is not 5.", "no_answer"), ("5", "5 is wrong.", "no_answer"), ("5", "between 4 and 5", "no_answer"),
    ("5", "10^5", "no_answer"),
    ("12", "it is 12 cm^2", "equal"), ("2", "it is 12 cm^2", "differs"), ("7/2", "so 3 1/2", "equal"),
    ("1/2", "so 3 1/2", "differs"), ("0", "5\u200b0", "no_answer"),
    ("5", "5\u200b0", "no_answer"), ("5", "x5", "no_answer"), ("3", "1,2,3", "no_answer"),
    ("24", "<<48/2=24>> it is 24", "equal"),
    ("5", "<reasoning>6</reasoning>\n<answer>\n5\n</answer>", "equal"), ("5", "<answer>5 or 6</answer>", "no_answer"),
    ("5", "<reasoning>\\boxed{5}</reasoning>\n6", "differs"), ("5", "<answer></answer>", "no_answer"),
    ("\\frac{n}{2}", "<answer>$\\frac n2$</answer>", "equal"), ("5", "<answer>6</answer> 5", "differs"),
    ("\\frac{n}{2}", "The answer is:\n\n\\[\n\\frac{n}{2}\n\\]", "equal"), ("3/4", "So it is $\\frac{3}{4}$.", "equal"),
    ("n+1", "**Final Answer**\n\n$1+n$", "equal"), ("5", "### Answer\n5\n\nIt took 3 steps.", "equal"),
    ("5", "No final answer\nyet, but 6", "differs"), ("5", "<answer>5</answer> I have 3 more.", "equal"),
    ("5", "I don't think the answer is 5.", "no_answer"), ("5", "It is false that the answer is 5.", "no_answer"),
    ("5", "If the answer is 5, I eat my hat. It is 6.", "no_answer"),
    ("5", "I am not sure, but the answer is 5.", "equal"),
    ("5", "As 6 doesn't work, the answer is 5.", "equal"),
    ("5", "The answer is 5. I doubt that the answer is 6.", "equal"),
    ("5", "The answer is $5\\pi$.", "differs"), ("5", "The answer is $\\sqrt{5}$.", "differs"),
    ("5", "It is $5\\pi$.", "no_answer"),
    ("1/2", "The answer is $\\frac{1}{2}x$.", "differs"), ("5", "$-\\boxed{5}$", "no_answer"),
    ("5", "x=-\\boxed{5}", "no_answer"),
    ("5", "- \\boxed{5}", "equal"), ("5", "$x\\neq\\boxed{5}$", "no_answer"), ("5", "\\boxed{5} (or 6)", "no_answer"),
    ("3/4", "$\\boxed{\\frac34}$ or 0.75.", "equal"), ("3/4", "\\boxed{0.75} or 3/5", "no_answer"),
    ("3/4", "\\boxed{0.75}, or 3/4, or 1", "no_answer"), ("2\\pi", "\\boxed{2\\pi}, or about 6.28", "equal"),
]  # fmt: skip


@pytest.fixture(scope="module")
def comparer():
  with symbolic.SymbolicComparer() as comparer:
    yield comparer


def assert_verdicts(rows, kind, comparer=None):
  golds, preds, verdicts = zip(*rows, strict=True)
  found = [c.verdict for c in check(golds, preds, [kind] * len(rows), comparer)]
  rows = zip(golds, preds, verdicts, found, strict=True)
  assert not [(g, p[:60], f"want {v}", f"got {f}") for g, p, v, f in rows if v != f]


def test_the_table_is_large():
  assert sum(map(len, EXACT.values())) + len(SYMBOLIC) + len(RESPONSES) > 400


@pytest.mark.parametrize("category", EXACT)
def test_exact(category, monkeypatch):
  monkeypatch.setattr(symbolic, "available", lambda: False)  # none of these needs Math-Verify
  assert_verdicts(EXACT[category], "answer")


@needs_math_verify
def test_symbolic(comparer):
  assert_verdicts(SYMBOLIC, "answer", comparer)


@needs_math_verify
def test_symbolic_answers_in_boxes_get_the_same_verdicts(comparer):
  assert_verdicts([(g, f"I say \\boxed{{{p}}}.", v) for g, p, v in SYMBOLIC], "response", comparer)


def test_no_choice_of_points_takes_x_for_its_absolute_value():
  assert not any(numerically(read("3x"), read("3|x|"), str(salt)) for salt in range(200))


def test_responses(comparer):
  assert_verdicts(RESPONSES, "response", comparer)


def test_a_gold_is_equal_to_itself_and_wrong_answers_stay_wrong_in_any_dress():
  for rows in EXACT.values():
    for gold, pred, verdict in rows:
      if verdict == "differs":
        for dressed in (f"${pred}$", f" {pred} ", f"\\boxed{{{pred}}}", f"\\[{pred}\\]"):
          assert not check([gold], [dressed], ["answer"])[0].correct, (gold, dressed)
      if verdict == "equal":
        assert check([gold], [gold], ["answer"])[0].correct


def test_gold_problem():
  for good in ("5", "$1,080", "60%", "\\frac{1}{2}", "\\text{Yes}", "no solution", "\\mathbb{Z}", "[0,1)", "n!",
  "\\sum_{k=1}^n k"):
    assert gold_problem(good) is None
  for bad, why in [
      ("", "empty"), ("$ $", "empty"), ("\\frac{5055}{2^{15}", "cut off"), ("2}", "cut off"), ("\\left(1,2", "cut off"),
      ("3+", "cut off"), ("2^", "cut off"), ("\\frac{1}{2}\\cdot", "cut off"), ("\\frac{1}", "cut off"),
      ("0/0", "no value"),
      ("The function is even exactly when both sides agree on every open interval", "prose"),
      ("(" * 50 + "x" + ")" * 50, "deep"),
      ("x" * 3000, "longer"),
  ]:  # fmt: skip
    problem = gold_problem(bad)
    assert problem and why in problem and "\n" not in problem, bad
    assert check([bad], ["5"], ["answer"])[0] == Checked("unparsable", "5")


def test_is_number():
  assert all(map(is_number, ("5", "-5", "1,080", "$14.50", "50%", "3/4", "\\frac{3}{4}", "72.", "0.5", "$\\boxed{5}$")))
  assert not any(map(is_number, ("x", "2\\sqrt{3}", "5, 6", "five", "", "1e3", "2^{10}", "5\\text{ cm}", "(1,2)")))


def test_extract_gives_the_text_of_the_answer():
  assert extract("so \\boxed{ \\frac{1}{2} }", "0.5") == "\\frac{1}{2}"
  assert extract("A: 1,080 pens", "1080") == "1,080"
  assert extract("The answer is $x+1$, I think", "x+1") == "x+1$, I think"
  assert extract("hm 5", "x") is None
  assert Checked("equal", "5").correct and not Checked("unparsable", "5").correct


def test_batches_keep_their_order_and_do_not_mix(comparer):
  golds = ["5", "\\sqrt{12}", "x", "\\sqrt{8}"] if symbolic.available() else ["5", "6", "x", "7"]
  preds = ["6", "2\\sqrt{3}", "", "2\\sqrt{3}"] if symbolic.available() else ["6", "6", "", "8"]
  assert [c.verdict for c in check(golds, preds, ["answer"] * 4, comparer)] == ["differs", "equal", "no_answer",
  "differs"]
  with pytest.raises(ValueError):
    check(["5"], [], ["answer"])
  assert check([], [], []) == []


@needs_math_verify
def test_threads_share_the_comparer(comparer):
  found = {}

  def work(i):
    found[i] = [c.verdict for c in check([f"\\sqrt{{{i}}}"] * 2, [f"\\frac{{\\sqrt{{{4 * i}}}}}{{2}}",
    "\\sqrt{7}"], ["answer"] * 2, comparer)]

  threads = [threading.Thread(target=work, args=(i,)) for i in (2, 3, 5, 11, 13, 17)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == {i: ["equal", "differs"] for i in (2, 3, 5, 11, 13, 17)}


def test_hostile_texts_are_read_fast():
  n = 20_000
  start = time.process_time()
  for piece in ("\\boxed{", "\\text{", "not ", "\\frac", "{", "\\", "\\boxed{5}", " ", "\\text ", ",", "9",
  "$", '"', ">", "<think>", "####",
                "answer is ", "5 or ", "1/", "|", "^", "\\boxed{\"", "is not ", "- "):  # fmt: skip
    check(["5", "x"], [piece * n] * 2, ["response"] * 2)
    check(["5", "x"], [piece * n] * 2, ["answer"] * 2)
    check(["5", "x"], ["\\boxed{" + piece.replace("{", "(") * n + "}"] * 2, ["response"] * 2)
  assert time.process_time() - start < 60  # a quadratic pattern takes many minutes


def rows_of(path):
  with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as lines:
    return [json.loads(line) for line in lines]


@needs_data
def test_all_published_labels_of_gsm8k_solutions():
  agree = collections.Counter()
  for row in rows_of(DATA / "gsm8k/example_model_solutions_dev.jsonl.gz"):
    outputs = list(row["outputs"].values())
    checked = check([row["answer"]] * len(outputs), [o["solution"] for o in outputs], ["response"] * len(outputs))
    agree.update(c.correct == o["is_correct"] for c, o in zip(checked, outputs, strict=True))
  assert agree == {True: 2732}


@needs_data
@pytest.mark.parametrize("name", ["gsm8k/train.jsonl.gz", "gsm8k/test_dev.jsonl.gz", "svamp/dev.jsonl",
"omni_math_rule/dev.jsonl.gz"])
def test_every_real_gold_is_equal_to_itself_and_not_to_the_next(name, comparer):
  rows = rows_of(DATA / name)
  assert all(bool(gold_problem(row["answer"])) == bool(row.get("known_issue")) for row in rows)
  golds = [row["answer"] for row in rows if not row.get("known_issue")]
  assert all(c.correct for c in check(golds, golds, ["answer"] * len(golds)))
  if not symbolic.available():
    return
  checked = check(golds[:-1], golds[1:], ["answer"] * (len(golds) - 1), comparer)
  for gold, other, c in zip(golds, golds[1:], checked, strict=False):
    # In these files equal neighbours are the same number, written alike or not.
    assert c.correct == (answers.canonical(gold) == answers.canonical(other)), (gold, other)
