// Command otlp-check decodes OTLP log requests with the OpenTelemetry Collector's own code.
//
// It reads bodies from standard input, each preceded by its size (four bytes, big endian), and
// writes one line of OTLP/JSON for each to standard output. A body that the Collector could not
// take ends it with exit code 1. tests/test_export_collector.py feeds it what the exporter sends.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

func main() {
	if err := check(bufio.NewReader(os.Stdin), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "otlp-check:", err)
		os.Exit(1)
	}
}

func check(in io.Reader, out io.Writer) error {
	for {
		var size uint32
		if err := binary.Read(in, binary.BigEndian, &size); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		line, err := decode(body)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return err
		}
	}
}

func decode(body []byte) ([]byte, error) {
	request := plogotlp.NewExportRequest()
	if err := request.UnmarshalProto(body); err != nil {
		return nil, err
	}
	return (&plog.JSONMarshaler{}).MarshalLogs(request.Logs())
}
