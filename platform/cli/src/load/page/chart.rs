//! Lines over the time of a run, as SVG.

use std::fmt::Write as _;

use super::escaped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
/// Room for the numbers and words around the lines.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 38.0;

/// Ticks of an axis, about.
const TICKS: f64 = 5.0;

/// Classes of lines there are.
const CLASSES: usize = 9;

/// A chart of one unit.
pub(super) struct Chart<'a> {
    /// What its values are, with the unit.
    pub(super) unit: &'a str,
    /// Seconds that the axis of time has.
    pub(super) seconds: f64,
    /// Whether each step of the axis is ten times the one before.
    pub(super) logarithmic: bool,
    pub(super) lines: Vec<Line>,
    pub(super) bands: &'a [Band],
}

/// A line of it.
pub(super) struct Line {
    pub(super) name: String,
    /// Which colour and dash.
    pub(super) class: usize,
    /// Time in seconds, and value; none is a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A time in which something was done on purpose.
pub(super) struct Band {
    /// As the table calls it.
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) until: f64,
}

/// From values to places.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Chart<'_> {
    /// The chart with its legend, below a heading.
    pub(super) fn draw(&self, heading: &str) -> String {
        let scale = self.scale();
        let mut svg = String::new();
        let label = escaped(&format!("{heading}: {} over time", self.unit));
        put(
            &mut svg,
            format_args!(
                "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
            ),
        );
        self.draw_bands(&mut svg);
        self.draw_axes(&mut svg, &scale);
        for line in &self.lines {
            self.draw_line(&mut svg, line, &scale);
        }
        svg.push_str("</svg>");
        let heading = escaped(heading);
        let legend = self.legend();
        format!("<h2>{heading}</h2>\n<figure>{legend}{svg}</figure>\n")
    }

    fn legend(&self) -> String {
        let unit = escaped(self.unit);
        let mut legend = format!("<div class=\"legend\"><span class=\"soft\">{unit}</span>");
        for line in &self.lines {
            let class = class(line.class);
            let name = escaped(&line.name);
            put(
                &mut legend,
                format_args!(
                    "<span><svg viewBox=\"0 0 26 8\" aria-hidden=\"true\"><polyline class=\"{class}\" \
                     points=\"1,4 25,4\"/></svg>{name}</span>"
                ),
            );
        }
        legend.push_str("</div>");
        legend
    }

    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.seconds).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn draw_bands(&self, svg: &mut String) {
        let bottom = HEIGHT - BOTTOM;
        for band in self.bands {
            let (from, until) = (self.x(band.from), self.x(band.until));
            let (width, height) = (until - from, bottom - TOP);
            put(
                svg,
                format_args!(
                    "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" \
                     height=\"{height}\"/><line class=\"edge\" x1=\"{from:.1}\" x2=\"{from:.1}\" \
                     y1=\"{TOP}\" y2=\"{bottom}\"/><text class=\"mark\" x=\"{:.1}\" y=\"{}\">{}</text>",
                    from + 3.0,
                    TOP - 6.0,
                    escaped(&band.name),
                ),
            );
        }
    }

    fn draw_axes(&self, svg: &mut String, scale: &Scale) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &scale.ticks {
            let y = scale.y(*tick);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 7.0,
                    y + 4.0,
                    number(*tick),
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
            ),
        );
        let step = step_of_time(self.seconds);
        for tick in steps(0.0, self.seconds, step) {
            let x = self.x(tick);
            put(
                svg,
                format_args!(
                    "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                     <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    bottom + 4.0,
                    bottom + 17.0,
                    time(tick, step),
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">since the beginning ({})</text>",
                HEIGHT - 5.0,
                if step < 60.0 { "s" } else { "h:min" },
            ),
        );
    }

    fn draw_line(&self, svg: &mut String, line: &Line, scale: &Scale) {
        let class = class(line.class);
        for part in line.points.split(|(_, value)| value.is_none()) {
            let mut places: Vec<_> = part
                .iter()
                .map(|(seconds, value)| (self.x(*seconds), scale.y(value.unwrap_or_default())))
                .collect();
            if let [(x, y)] = places[..] {
                // A lone point is a dot, as wide as the line.
                places.push((x + 0.1, y));
            }
            let points: Vec<_> = places
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            if !points.is_empty() {
                let points = points.join(" ");
                put(
                    svg,
                    format_args!("<polyline class=\"{class}\" points=\"{points}\"/>"),
                );
            }
        }
    }

    fn scale(&self) -> Scale {
        let values = || {
            let points = self.lines.iter().flat_map(|line| &line.points);
            points.filter_map(|(_, value)| *value)
        };
        let highest = values().fold(0.0, f64::max);
        if self.logarithmic {
            let lowest = values().filter(|value| *value > 0.0);
            let lowest = lowest.fold(f64::INFINITY, f64::min);
            return Scale::logarithmic(lowest, highest);
        }
        Scale::linear(highest)
    }
}

impl Scale {
    /// From nothing to `highest`.
    fn linear(highest: f64) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let step = nice(highest / TICKS);
        let high = (highest / step).ceil() * step;
        Self {
            low: 0.0,
            high,
            logarithmic: false,
            ticks: steps(0.0, high, step).collect(),
        }
    }

    /// Powers of ten from below `lowest` to above `highest`.
    fn logarithmic(lowest: f64, highest: f64) -> Self {
        let (lowest, highest) = if lowest.is_finite() {
            (lowest, highest)
        } else {
            (1.0, 1.0)
        };
        let low = lowest.log10().floor();
        let high = highest.log10().ceil().max(low + 1.0);
        Self {
            low,
            high,
            logarithmic: true,
            ticks: steps(low, high, 1.0)
                .map(|power| 10_f64.powf(power))
                .collect(),
        }
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            // Nothing is the lowest there is.
            value.log10().max(self.low)
        } else {
            value
        };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }
}

/// Values from `low` to `high`, a bounded number of them.
fn steps(low: f64, high: f64, step: f64) -> impl Iterator<Item = f64> {
    let values = (0_u8..50).map(move |number| low + f64::from(number) * step);
    values.take_while(move |value| *value <= high + step * 1e-6)
}

/// The step of 1, 2 or 5 times a power of ten that is at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= step * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Steps of time that people count in, ten of them at most.
fn step_of_time(seconds: f64) -> f64 {
    let known = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
        3_600.0, 7_200.0,
    ];
    let step = known.into_iter().find(|step| seconds / step <= 10.0);
    step.unwrap_or(14_400.0)
}

/// A tick of the axis of time.
fn time(seconds: f64, step: f64) -> String {
    if step < 60.0 {
        return number(seconds);
    }
    let minutes = (seconds / 60.0).round();
    format!("{}:{:02}", (minutes / 60.0).floor(), minutes % 60.0)
}

/// A tick as short as it can be: `0.5`, `20`, `15k`.
fn number(value: f64) -> String {
    if value >= 10_000.0 {
        return format!("{}k", value / 1_000.0);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn class(number: usize) -> String {
    // The first is for what was asked for, and not for one of many.
    let class = if number < CLASSES {
        number
    } else {
        1 + number % (CLASSES - 1)
    };
    format!("s{class}")
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("a string takes all that is written");
}

#[cfg(test)]
mod tests;
