// What travels to the device and back with every frame. frame.py says the same to NumPy; a test
// compares the two.
#pragma once

// Begins every input block; the points or pixels follow it. All live parameters are here, so that
// a recorded graph serves for all of their values.
struct Frame {
    int points;            // points that follow
    int most;              // candidates that enter suppression
    int max_detections;    // boxes that are put out
    float min_range2;      // m^2, points nearer to the z axis are left out
    float intensity_scale; // brings the intensity to 0..1; 1 where time_lag is in its place
    float nms_iou;         // within a group
    float nms_iou_across;  // between groups
    int moved;             // whether points are moved by `motion`
    float thresholds[128];     // lowest value of every label; inf where a label is dropped
    unsigned char groups[128]; // suppression group of every label
    float motion[3][4];        // from the frame of the points to that of the network, row by row
    float ego_low[3];          // m, points in [low, high) along all axes are left out
    float ego_high[3];
    unsigned char padding[280];
};

static_assert(sizeof(Frame) == 1024, "frame.py counts on it");

// Comes back to the host, in one copy. The counts stand first and the rows follow, best first.
constexpr int MOST_ROWS = 1000;

struct Row {
    float box[7]; // as the boxes kernel of the network wrote it: x, y, z, l, w, h, yaw
    float score;
    float label;
};

struct Result {
    unsigned count;      // rows that are valid
    unsigned flags;      // what went wrong: the bits below
    unsigned candidates; // places that reached their threshold, also those beyond Frame::most
    unsigned in_range;   // points within the range of the network
    unsigned pillars;    // occupied, also those beyond what the network takes
    unsigned considered; // candidates that entered suppression
    unsigned pairs;      // of them that overlap too much
    unsigned reserved[9];
    Row rows[MOST_ROWS];
};

// The same of a network that puts out velocities.
struct ResultWithVelocities {
    Result result;
    float velocities[MOST_ROWS][2]; // vx, vy of the rows
};

constexpr unsigned NAN_SCORE = 1, BAD_BOX = 2; // of Result::flags

static_assert(sizeof(Result) == 64 + MOST_ROWS * 36, "frame.py counts on it");

