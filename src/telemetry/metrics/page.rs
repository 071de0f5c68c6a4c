//! Builds the families that the text encoder writes out.

use super::histogram::{BOUNDS_US, Snapshot};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Labels of one sample: names and values.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Families under construction, in the order in which they are begun.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

/// The family that samples go to.
pub(super) struct Family<'p>(&'p mut MetricFamily);

impl Page {
    /// Begins a family of counters.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.begin(MetricType::COUNTER, name, help)
    }

    /// Begins a family of gauges.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.begin(MetricType::GAUGE, name, help)
    }

    /// Begins a family of histograms of seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str) -> Family<'_> {
        self.begin(MetricType::HISTOGRAM, name, help)
    }

    /// The families that have samples; the encoder takes no others.
    pub(super) fn into_families(mut self) -> Vec<MetricFamily> {
        self.families.retain(|family| !family.get_metric().is_empty());
        self.families
    }

    fn begin(&mut self, kind: MetricType, name: &str, help: &str) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Family(self.families.push_mut(family))
    }
}

impl Family<'_> {
    /// Adds the sample of a counter or gauge.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        match self.0.get_field_type() {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0.mut_metric().push(metric);
    }

    /// Adds the samples of one histogram.
    pub(super) fn buckets(&mut self, labels: Labels<'_>, snapshot: &Snapshot) {
        let buckets = BOUNDS_US.iter().zip(snapshot.cumulative).map(|(bound_us, cumulative)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound_us as f64 / 1e6);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(snapshot.count);
        histogram.set_sample_sum(snapshot.sum_seconds);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
