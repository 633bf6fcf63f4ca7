use super::*;

/// Goal: axes have few, round numbers that reach over every value.
/// Method: values of many sizes on both scales.
#[test]
fn axes_are_round_and_reach_over_every_value() {
    for (highest, ticks) in [
        (0.0, "0 0.2 0.4 0.6 0.8 1"),
        (0.7, "0 0.2 0.4 0.6 0.8"),
        (5.0, "0 1 2 3 4 5"),
        (99.0, "0 20 40 60 80 100"),
        (12_345.0, "0 5000 10k 15k"),
    ] {
        let scale = Scale::linear(highest);
        let shown: Vec<_> = scale.ticks.iter().map(|tick| number(*tick)).collect();
        assert_eq!(ticks, shown.join(" "));
        assert!(scale.high >= highest);
    }
    for (lowest, highest, ticks) in [
        (0.5, 80.0, "0.1 1 10 100"),
        (3.0, 3.0, "1 10"),
        (10.0, 10.0, "10 100"),
        (f64::INFINITY, 0.0, "1 10"),
    ] {
        let scale = Scale::logarithmic(lowest, highest);
        let shown: Vec<_> = scale.ticks.iter().map(|tick| number(*tick)).collect();
        assert_eq!(ticks, shown.join(" "));
        for value in [lowest, highest, 0.0] {
            assert!((TOP..=HEIGHT - BOTTOM).contains(&scale.y(value)), "{value}");
        }
    }
    for (seconds, step) in [
        (0.5, 0.1),
        (10.0, 1.0),
        (45.0, 5.0),
        (3_000.0, 300.0),
        (86_400.0, 14_400.0),
    ] {
        assert_eq!(
            0,
            step_of_time(seconds).total_cmp(&step) as i32,
            "{seconds}"
        );
    }
    assert_eq!(("2:30", "15"), (&*time(9_000.0, 600.0), &*time(15.0, 5.0)));
}

/// Goal: what is not known is a gap, and a lone point is seen.
/// Method: a line with both.
#[test]
fn gaps_are_gaps() {
    let chart = Chart {
        unit: "ms",
        seconds: 5.0,
        logarithmic: false,
        lines: vec![Line {
            name: "a".to_owned(),
            class: 1,
            points: vec![
                (0.0, Some(1.0)),
                (1.0, Some(2.0)),
                (2.0, None),
                (3.0, Some(1.0)),
                (4.0, None),
            ],
        }],
        bands: &[],
    };
    let svg = chart.draw("x");
    // Two of the line, and one of the legend.
    assert_eq!(3, svg.matches("<polyline").count());
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}
