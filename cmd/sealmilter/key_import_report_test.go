package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"strings"
	"testing"

	"sealmilter/keys"
)

// TestImportReport: what strangers have written comes into the report as text:
// it is no formula for a spreadsheet, and moves no cursor.
func TestImportReport(t *testing.T) {
	var report bytes.Buffer
	i := &importer{report: csv.NewWriter(&report), progress: newProgress(new(bytes.Buffer), ""), said: new(bytes.Buffer)}
	for _, address := range []string{`=cmd|' /C calc'!A0`, "+1", "-1", "@SUM(1)", "\x1b[31mred@example.org", "\u009b31mred@example.org", "ann@example.org"} {
		if err := i.take(context.Background(), handedText{file: "=table.csv", place: "line 1", address: address, problem: &keys.Refusal{Reason: keys.ReasonNoKey, Text: "=1+1"}}); err != nil {
			t.Fatal(err)
		}
	}
	i.report.Flush()
	records, err := csv.NewReader(&report).ReadAll()
	if err != nil || len(records) != 7 {
		t.Fatalf("%d records, error %v", len(records), err)
	}
	for _, record := range records {
		for _, text := range record {
			if text != printable(text) || text != "" && strings.ContainsAny(text[:1], "=+-@\t") {
				t.Errorf("the report has %q", text)
			}
		}
	}
	if records[6][2] != "ann@example.org" {
		t.Errorf("an address became %q", records[6][2])
	}
}
