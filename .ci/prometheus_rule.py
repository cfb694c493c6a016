"""Prints the PrometheusRule of k8s/components/prometheus-operator, made from deploy/prometheus/rules.yaml.

Kustomize takes no file from outside of a component's folder, and puts no file's content into a field.
"""

import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_HEAD = """\
# Made from deploy/prometheus/rules.yaml by `make k8s-rules`; a test holds the two together.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: scrapellm-relay
  labels:
    app.kubernetes.io/name: scrapellm-relay
    app.kubernetes.io/part-of: scrapellm-relay
spec:
"""


def rule() -> str:
    """The manifest: the file of rules, comments and all, as the specification."""
    rules = (_ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    return _HEAD + textwrap.indent(rules, "  ")


if __name__ == "__main__":
    sys.stdout.write(rule())
